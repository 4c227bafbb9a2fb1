"""The ablation's runs -> one JSON, and from it alone a page, its tables and its figures.

python -m experiments.ablation.report --size small --out results/ablation --comparison fsq_ae_comparison.md
python -m experiments.ablation.report --report results/ablation.json
python -m experiments.ablation.report --report results/ablation.json --again RUNS --size small
"""

import json
import time
from pathlib import Path

import torch

from benchmarks.machine import machine
from experiments.ablation.claims import UNTESTABLE, collect, hypotheses, measured
from experiments.ablation.figures import draw_all
from experiments.ablation.plan import SIZES, Plan, variant
from models.AE import AE_models, make_ae
from motion.files import write_json, write_text
from utils.analysis.output import markdown, plus_minus
from utils.cli import Parser, run
from utils.config import ReconstructionLoss
from utils.errors import BadInput
from utils.training.train_utils import parameter_count

RULES = "experiments/ablation/RULES.md"
COLUMNS = {  # title: key, digits
    "FID": ("fid", 3), "within contents": ("fid_content", 3), "physical": ("physical", 2),
    "MPJPE mm": ("mpjpe", 1), "global mm": ("mpjpe_global", 0), "top 1": ("top1", 3), "top 3": ("top3", 3),
    "coverage": ("coverage", 2), "foot skate": ("foot_skate", 3), "jitter": ("jitter", 1),
    "root speed m/s": ("root_speed", 2),
}  # fmt: skip
READING = f"""Every claim is a number per autoencoder seed (the mean of its generators) and a limit, both
stated beforehand in `{RULES}`. n: autoencoder seeds, of the variances' ratio degrees of freedom. ±: 95% over
seeds and test clips. power: the difference that would be noticed four times in five, of the ratio the ratio.
Last checkpoint; where the best on val was evaluated too, it stands in the tables."""


def flags():
    parser = Parser(__doc__)
    parser.add_argument("--size", choices=SIZES, help="of --folder or --again [reduced, or that of --report]")
    parser.add_argument("--folder", type=Path, help="of the runs [checkpoints/ablation_<size>]")
    parser.add_argument("--report", type=Path, help="a JSON collected before: nothing else is read")
    parser.add_argument(
        "--again", type=Path, help="runs of another machine or size, a folder or their JSON, to be added"
    )
    parser.add_argument("--out", type=Path, help="files to write, without suffix [report, in --folder]")
    parser.add_argument("--summary", type=Path, help="markdown that opens the page [none]")
    parser.add_argument("--comparison", type=Path, help="file for the table of autoencoders [none]")
    return parser


def main(argv=None):
    args = flags().parse_args(argv)
    size = args.size or "reduced"
    folder = args.folder or Path("checkpoints") / f"ablation_{size}"
    out = args.report.with_suffix("") if args.report else args.out or folder / "report"
    if args.report:
        record = read(args.report)
    else:
        record = made_on_this_machine() | {"size": size, "sets": found(size, folder), "summary": ""}
    if args.again:
        others = other_sets(args.again, args.size or record["size"])
        sizes = {one["size"] for one in others}
        record["sets"] = [one for one in record["sets"] if one.get("size") not in sizes] + others
    if args.summary:
        record["summary"] = args.summary.read_text(encoding="utf-8")
    if args.again or args.summary or not args.report:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out.with_name(out.name + ".json"), record)
    write_text(out.with_name(out.name + ".md"), page(record, out))
    write_text(out.with_name(out.name + "_tables.md"), tables(record, out.name))
    if args.comparison:  # of the set with the most autoencoders
        one = max(record["sets"], key=lambda one: sum("test" in records for records in one["runs"].values()))
        size = SIZES[one.get("size", record["size"])]
        write_text(args.comparison, comparison(one, size, out.name))
    for one in hypotheses(record["sets"][0]):
        print(f"{one['name']}: {one['verdict']}")


def made_on_this_machine():
    return {"machine": machine(), "date": time.strftime("%Y-%m-%d")}


def found(size, folder):
    """What was evaluated in the runs of `folder`, for each data set of the size."""
    sets = [collect(Plan(size, name, folder)) for name in SIZES[size].sets]
    if not any(one["runs"] for one in sets):
        raise BadInput(f"{folder} holds no evaluated run of size {size}: see run.sh beside this program")
    return sets


def other_sets(source, size):
    """-> what `found` finds in a folder, or the sets of a JSON, each with its machine, date and size."""
    if source.is_dir():
        about, sets = made_on_this_machine() | {"size": size}, found(size, source)
    else:
        record = read(source)
        about, sets = {key: record[key] for key in ("machine", "date", "size")}, record["sets"]
    return [about | one for one in sets]


def read(path):
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        record["sets"], record["summary"], [(one["runs"], one["reference"]) for one in record["sets"]]
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist: collect it without --report") from None
    except (ValueError, KeyError, TypeError, UnicodeDecodeError):
        raise BadInput(f"{path} is not what this program collects: make it anew without --report") from None
    return record


def page(record, out):
    """ablation.md: what can be said, and one figure per claim. Draws the figures."""
    parts = [
        "# Continuous, narrow, FSQ and VQ tokens, diffusion and classification",
        record["summary"].strip(),
    ]
    facts = f"{record['machine']}; size `{record['size']}` of `bash experiments/ablation/run.sh`; "
    parts += [
        f"{facts}{record['date']}. [Every table and command]({out.name}_tables.md).",
        "## Verdicts",
        READING,
    ]
    drawn = set()
    for one in record["sets"]:
        parts += [f"### {heading(one)}", verdict_table(tested(hypotheses(one)))]
        if one is record["sets"][0]:
            parts.append(left_out(hypotheses(one)))
        figures = draw_all(one, out, drawn)
        parts += [f"{title}\n\n![{title}]({path.name})" for title, path in figures.items()]
        drawn |= figures.keys()
    return "\n\n".join(part for part in parts if part) + "\n"


def heading(one):
    if "machine" not in one:
        return one["dataset"]
    place = f"with an evaluator of its own: {one['machine']}"
    return f"{one['dataset']} again, size `{one['size']}`, {one['date']}, {place}"


def tested(hypotheses):
    """The hypotheses of which some claim was run, with only those claims."""
    run = [one | {"claims": [c for c in one["claims"] if c["n"]]} for one in hypotheses]
    return [one for one in run if one["claims"]]


def left_out(hypotheses):
    """A line that names the hypotheses of which some claim has no figure."""
    parts = []
    for reason in ("not run", UNTESTABLE):
        names = [one["name"] for one in hypotheses if reason in (c["answer"] for c in one["claims"])]
        if names:
            parts.append(f"{reason[0].upper()}{reason[1:]}, in whole or in part: {', '.join(names)}.")
    return " ".join(parts)


def verdict_table(hypotheses):
    rows = []
    for one in hypotheses:
        for k, c in enumerate(one["claims"]):
            opening = [one["name"], one["text"], f"**{one['verdict']}**"] if k == 0 else [""] * 3
            rows.append([*opening, c["claim"], c["figure"], c["n"], c["power"], c["answer"]])
    return markdown(["", "hypothesis", "verdict", "claim", "±", "n", "power", "answer"], rows)


def tables(record, stem):
    """ablation_tables.md: every measure of every variant and arm, and the commands."""
    parts = [f"# Tables of [the ablation]({stem}.md)"]
    for one in record["sets"]:
        arms = [*one["arms"], *(f"{arm}_w{w}" for arm in one["arms"] for w in one["widths"])]
        drawn = [record for run in one["runs"].values() for record in run if not record.startswith("val_")]
        drawn = [
            record for record in dict.fromkeys(drawn) if record not in ("test", "stories_step", "stories_off")
        ]
        parts += [f"## {heading(one)}", "Reconstruction:", measure_table(one, one["variants"])]
        for name in drawn:
            parts += [f"Generation, {name}:", measure_table(one, arms, name)]
        rows = [[name, *(number(row.get(key), n) for key, n in COLUMNS.values())]
                for name, row in one["references"].items()]  # fmt: skip
        parts += ["References:", markdown(["", *COLUMNS], rows)]
        parts += ["Commands and seconds:", "```\n" + "\n".join(job.strip() for job in one["jobs"]) + "\n```"]
    return "\n\n".join(parts) + "\n"


def number(value, digits):
    return "-" if value is None else f"{value['mean']:.{digits}f}"


def measure_table(record, names, evaluation="test_latest"):
    """A row for each of these variants or arms that was measured: mean ± 95% over seeds and clips."""
    rows = []
    for name in names:
        numbers = [measured(record, name, key, evaluation) for key, _ in COLUMNS.values()]
        if numbers[0].seeds:
            cells = [
                plus_minus(*one.interval(), digits) if one.seeds else "-"
                for one, (_, digits) in zip(numbers, COLUMNS.values())
            ]
            rows.append([name, len(numbers[0].seeds), *cells])
    return markdown(["", "seeds", *COLUMNS], rows) if rows else "Not run."


def comparison(record, size, stem):
    """fsq_ae_comparison.md: every entry of AE_models at the Size's width, measured or not; then others'."""
    trained, rows = {}, []
    for name in record["variants"]:
        trained.setdefault(variant(name)[0], []).append(name)
    for model in AE_models:
        for name in trained.get(model, ["not trained"]):
            with torch.device("meta"):
                ae = make_ae(model, width=size.ae_width, **(variant(name)[1] if model in trained else {}))
            levels = " ".join(map(str, ae.fsq_levels or "-"))
            parameters = f"{parameter_count(ae):,}"
            keys = [COLUMNS[title] for title in ("FID", "physical", "MPJPE mm", "top 3")]
            cells = [(measured(record, name, key), digits) for key, digits in keys]
            cells = [plus_minus(*one.interval(), digits) if one.seeds else "-" for one, digits in cells]
            rows.append([model, name, levels, ae.codebook_size or "-", ae.target_dim, parameters, *cells])
    windows, usual = f"`--windows_per_clip {size.windows}`", ReconstructionLoss.windows_per_clip
    windows += "" if size.windows == usual else f"; the default is `{usual}`"
    quoted = json.loads((Path(__file__).parent / "quoted.json").read_text(encoding="utf-8"))
    width = size.ae_width
    facts = f"""Made from `results/{stem}.json` by `experiments/ablation/report.py`; {record["dataset"]}, test
split, its own evaluator, width {width}, mean ± 95% over seeds and clips. FSQ_k and VQ_k have about 2^k codes.
FIDs of different data sets and evaluators are different quantities. Autoencoders
are trained with {windows}."""
    if "machine" in record:
        facts += f" Size `{record['size']}` of [the ablation](results/{stem}.md)."
    header = ["model", "run", "levels", "codes", "d", "parameters", "FID", "physical"]
    parts = ["# The autoencoders compared", facts, markdown([*header, "MPJPE mm", "top 3"], rows)]
    others = [[one["what"], one["fid"], one["note"]] for one in quoted]
    title = "## Others' figures\n\nHumanML3D, reported by others, not measured here."
    return "\n\n".join([*parts, title, markdown(["", "FID", "protocol"], others)]) + "\n"


if __name__ == "__main__":
    run(main)
