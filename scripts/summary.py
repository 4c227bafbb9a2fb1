"""The figures of an evaluation at a glance, from its eval.json.

python -m scripts.summary checkpoints/Demo/FSQ_MARDM_SiT_XS/eval/eval.json
"""

from pathlib import Path

from utils.cli import Parser, run
from utils.errors import BadInput
from utils.evaluation_report import MEASURES
from utils.plain import parse_json

SHARES = ("top1", "top2", "top3")  # measures of which generated motion reaches a share of the real one's


def flags():
    parser = Parser(__doc__)
    parser.add_argument("eval_json", help="written by evaluation_AE.py or evaluation_MARDM.py")
    return parser


def read_means(file):
    """-> row name (real, reconstruction, generated, ...) -> measure -> mean. Raises BadInput."""
    try:
        rows = parse_json(Path(file).read_text(encoding="utf-8"))["rows"]
        return {name: {key: x["mean"] for key, x in row["interval"].items()} for name, row in rows.items()}
    except FileNotFoundError:
        raise BadInput(f"{file} does not exist: run the evaluation first") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadInput(f"{file} is not what an evaluation writes: run it again") from None


def table(means):
    """A line per measure that any row has, a column per row."""
    lines = [" " * 20 + "".join(f"{name:>16}" for name in means)]
    for key, title in MEASURES.items():
        if any(key in values for values in means.values()):
            cells = (f"{values[key]:.4g}" if key in values else "-" for values in means.values())
            lines.append(f"{title:<20}" + "".join(f"{cell:>16}" for cell in cells))
    return "\n".join(lines)


def shares(means):
    """How much of the real motion's R-precision the generated motion reaches, or None."""
    real, generated = means.get("real", {}), means.get("generated", {})
    found = [
        f"{key} {generated[key] / real[key]:.3f}" for key in SHARES if real.get(key) and key in generated
    ]
    return "generated / real R-precision: " + "  ".join(found) if found else None


def main(argv=None):
    means = read_means(flags().parse_args(argv).eval_json)
    print(table(means))
    if shares(means):
        print(shares(means))


if __name__ == "__main__":
    run(main)
