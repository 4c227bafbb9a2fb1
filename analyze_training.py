"""How several runs trained, side by side: convergence and stability, one figure and one table.

python analyze_training.py --log_dirs checkpoints/t2m/MARDM checkpoints/t2m/FSQ_MARDM --output training.png
Runs whose names differ in a trailing _<number> are seeds of one group: the table gives their mean and range.

steps, seconds  until a fixed FID or top-3 (Test/FID, Test/top3, of one evaluator), at the first evaluation
                that reaches it, without interpolation between evaluations. Seconds = steps x median seconds
                per step, without pauses and evaluations.
spikes          logged gradient norms after warm-up above median + 6 MAD of the 101 around them
CV              of the gradient norm after warm-up: standard deviation / mean; detrended: the same of the norm
                divided by its running median
"""

import utils.environment  # noqa: F401  # isort: skip
from pathlib import Path

from motion.files import write_json, write_text
from utils.analysis.convergence import FID, NORM, TOP3, progress, steadiness, thresholds
from utils.analysis.event_files import check_names, read_points, run_name
from utils.analysis.output import check_picture
from utils.analysis.training_figure import draw, table
from utils.cli import Parser, command_line, number, run
from utils.errors import BadInput
from utils.statistics import split_seed


def parse(argv):
    parser = Parser(__doc__)
    parser.add_argument("--log_dirs", type=Path, nargs="+", required=True, help="folders of the runs")
    parser.add_argument("--names", nargs="+", help="their names [the folders']")
    parser.add_argument(
        "--metric",
        default="Train/loss",
        help="scalar of the middle row; a loss has an axis of its own for every group, since losses in "
        "different target spaces cannot be compared [%(default)s]",
    )
    parser.add_argument(
        "--output", type=Path, default="training.png", help="figure: png, pdf or svg [%(default)s]"
    )
    parser.add_argument("--table", type=Path, help="markdown file for the table [printed only]")
    parser.add_argument("--json", type=Path, help="file for every number and curve [none]")
    parser.add_argument("--fid_at", type=number(float, 0), help="FID to reach [2 x the best of all runs]")
    parser.add_argument(
        "--top3_at", type=number(float, 0, 1), help="top-3 to reach [0.9 x the best of all runs]"
    )
    parser.add_argument(
        "--smooth",
        type=number(float, 0, 0.9999),
        default=0.8,
        help="smoothing: weight of the past [%(default)s]",
    )
    args = parser.parse_args(argv)
    args.names = args.names or [run_name(folder) for folder in args.log_dirs]
    check_names(args.names, args.log_dirs)
    check_picture(args.output)
    return args


def examine(runs, metric="Train/loss", fid_at=None, top3_at=None):
    """run name -> curves (read_points). -> everything that `table` and `draw` need, as plain data"""
    fid_at, top3_at = thresholds(runs, fid_at, top3_at)
    results = {}
    for name, curves in runs.items():
        group, seed = split_seed(name)
        facts = {"group": group, "seed": seed, **progress(curves, fid_at, top3_at), **steadiness(curves)}
        facts["curves"] = {
            tag: {"steps": curves[tag][0].tolist(), "values": [float(f"{v:.6g}") for v in curves[tag][1]]}
            for tag in dict.fromkeys((FID, TOP3, NORM, metric))
            if tag in curves
        }
        results[name] = facts
    return {"metric": metric, "fid_at": fid_at, "top3_at": top3_at, "runs": results}


def main(argv=None):
    args = parse(argv)
    runs = {name: read_points(folder) for name, folder in zip(args.names, args.log_dirs)}
    known = sorted({tag for curves in runs.values() for tag in curves})
    if args.metric not in known:
        raise BadInput(f"--metric {args.metric}: no such scalar; there are {', '.join(known)}")
    record = {"command": command_line()}
    record |= examine(runs, args.metric, args.fid_at, args.top3_at)
    print(table(record))
    if args.table:
        write_text(args.table, table(record) + "\n")
    if args.json:
        write_json(args.json, record)
    draw(record, args.output, args.smooth)
    print(f"figure: {args.output}")


if __name__ == "__main__":
    run(main)
