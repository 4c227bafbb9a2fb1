"""How several runs trained, side by side: convergence and stability, one figure and one table.

python analyze_training.py --log_dirs checkpoints/t2m/MARDM checkpoints/t2m/FSQ_MARDM --output training.png
Runs whose names differ in a trailing _<number> are seeds of one group: the table gives their mean and range.

steps, seconds  to a fixed FID or top-3 (Test/FID, Test/top3, of one judge): the first evaluation that reaches
                it, no interpolation: the spacing of the evaluations is the resolution. Seconds = steps x
                median seconds per step: pauses and evaluations take no part.
spikes          logged gradient norms after warm-up above median + 6 MAD of the 101 around them
CV              of the gradient norm after warm-up: standard deviation / mean; detrended: the same of the norm
                divided by its running median
"""

import json
import shlex
import sys
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter

from motion.files import whole_file
from utils.cli import Parser, number, run, write_text
from utils.convergence import FID, NORM, TOP3, progress, running_median, steadiness, thresholds
from utils.curves import read_points, run_name, smooth
from utils.errors import BadInput
from utils.statistics import split_seed, student

COLUMNS = {  # of the table: title, key, digits
    "best FID": ("best_fid", 3),
    "at step": ("best_fid_step", 0),
    "steps to FID": ("steps_to_fid", 0),
    "s to FID": ("seconds_to_fid", 0),
    "best top-3": ("best_top3", 3),
    "steps to top-3": ("steps_to_top3", 0),
    "s to top-3": ("seconds_to_top3", 0),
    "spikes": ("spikes", 1),
    "CV": ("cv", 3),
    "CV detrended": ("cv_detrended", 3),
}


def main(argv=None):
    args = parse(argv)
    runs = {name: read_points(folder) for name, folder in zip(args.names, args.log_dirs)}
    known = sorted({tag for curves in runs.values() for tag in curves})
    if args.metric not in known:
        raise BadInput(f"--metric {args.metric}: no such scalar; there are {', '.join(known)}")
    record = {"command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])}
    record |= examine(runs, args.metric, args.fid_at, args.top3_at)
    print(table(record))
    if args.table:
        write_text(args.table, table(record) + "\n")
    if args.json:
        write_text(args.json, json.dumps(record))
    draw(record, args.output, args.smooth)
    print(f"figure: {args.output}")


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
        "--smooth", type=number(float, 0, 0.9999), default=0.8, help="weight of the past [%(default)s]"
    )
    args = parser.parse_args(argv)
    args.names = args.names or [run_name(folder) for folder in args.log_dirs]
    if len(args.names) != len(args.log_dirs):
        raise BadInput(
            f"--names: {len(args.names)} for {len(args.log_dirs)} runs; give one name for each run"
        )
    twice = {name for name in args.names if args.names.count(name) > 1}
    if twice:
        raise BadInput(f"two runs are called {twice.pop()}: give each its own with --names")
    if args.output.suffix not in (".png", ".pdf", ".svg"):
        raise BadInput(f"--output {args.output}: pictures are written as .png, .pdf or .svg")
    return args


def examine(runs, metric="Train/loss", fid_at=None, top3_at=None):
    """run name -> curves (read_points). -> everything that `table` and `draw` need, as plain data"""
    fid_at, top3_at = thresholds(runs, fid_at, top3_at)
    found = {}
    for name, curves in runs.items():
        group, seed = split_seed(name)
        kept = {tag: curves[tag] for tag in dict.fromkeys((FID, TOP3, NORM, metric)) if tag in curves}
        found[name] = {
            "group": group,
            "seed": seed,
            **progress(curves, fid_at, top3_at),
            **steadiness(curves),
            "curves": {
                tag: {"steps": x.tolist(), "values": [float(f"{v:.6g}") for v in y]}
                for tag, (x, y, _) in kept.items()
            },
        }
    return {"metric": metric, "fid_at": fid_at, "top3_at": top3_at, "runs": found}


def groups_of(record):
    """group -> its runs, in the order they were given."""
    groups = {}
    for one in record["runs"].values():
        groups.setdefault(one["group"], []).append(one)
    return groups


def cell(runs, key, digits):
    """Mean and range over seeds; where some never got there, how many did."""
    values = [one[key] for one in runs if one.get(key) is not None]
    asked = [one for one in runs if key in one]
    if not values:
        return "never" if asked else "-"
    text = f"{student(values)[0]:.{digits}f}"
    if len(values) > 1 and max(values) > min(values):
        text += f" ({min(values):.{digits}f} to {max(values):.{digits}f})"
    return text if len(values) == len(runs) else f"{text}, {len(values)} of {len(runs)} runs"


def table(record):
    """Markdown: a row for each group, means over its seeds and their range."""
    rows = [["run", "seeds", "steps", *COLUMNS]]
    for group, runs in groups_of(record).items():
        cells = (cell(runs, key, digits) for key, digits in COLUMNS.values())
        rows.append([group, str(len(runs)), cell(runs, "steps", 0), *cells])
    rows.insert(1, ["---"] * len(rows[0]))
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    at = [
        f"{title} {value:.4g}"
        for title, value in (("FID", record["fid_at"]), ("top-3", record["top3_at"]))
        if value is not None
    ]
    return "\n".join(lines) + (f"\n\nThresholds: {', '.join(at)}." if at else "\n\nNo run was judged.")


def draw(record, path, weight=0.8):
    """Judged metrics on shared axes; the metric and the gradient norm of each group in a panel of its own."""
    groups = groups_of(record)
    columns = max(len(groups), 3)
    figure = Figure(figsize=(3.7 * columns, 9), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    top, *rest = figure.subfigures(3, 1)
    judged(top.subplots(1, 3), record, groups)
    own_axes = "loss" in record["metric"].lower()
    for part, tag, sharey in zip(rest, (record["metric"], NORM), (not own_axes, True)):
        panels = part.subplots(1, columns, sharey=sharey, squeeze=False)[0]
        for i, (axes, (name, runs)) in enumerate(zip(panels, groups.items())):
            one_group(axes, tag, runs, f"C{i}", weight)
            axes.set_title(name, fontsize=9)
        for axes in panels[len(groups) :]:
            axes.set_axis_off()
        label = "gradient norm / running median" if tag == NORM else tag
        panels[0].set_ylabel(label + (" (own axis each)" if tag != NORM and own_axes else ""))
    with whole_file(path) as part:
        figure.savefig(part)


def judged(panels, record, groups):
    """FID over steps and over seconds, top-3 over steps: a thin line a seed, a thick one for their mean."""
    for axes, tag, at, clock in zip(
        panels, (FID, FID, TOP3), (record["fid_at"], record["fid_at"], record["top3_at"]), (0, 1, 0)
    ):
        axes.set(xlabel="seconds of training" if clock else "step", ylabel=tag)
        axes.grid(alpha=0.3)
        for i, (name, runs) in enumerate(groups.items()):
            have = [one for one in runs if tag in one["curves"]]
            for one in have:
                curve, pace = one["curves"][tag], one["seconds_per_step"] or 1
                x = np.array(curve["steps"]) * (pace if clock else 1)
                axes.plot(x, curve["values"], color=f"C{i}", alpha=0.35, linewidth=1, marker=".")
            x, y = mean_curve(have, tag, clock)
            axes.plot(x, y, color=f"C{i}", linewidth=2, label=f"{name} ({len(have)})" if have else None)
        if at is not None:
            axes.axhline(at, color="grey", linestyle=":", label=f"threshold {at:.3g}")
        if tag == FID and at is not None:
            axes.set_yscale("log")
            for each in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
                each(FormatStrFormatter("%.3g"))
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=7)


def mean_curve(runs, tag, clock):
    """Mean over seeds at the steps that all of them have -> (x, y)."""
    curves = [dict(zip(one["curves"][tag]["steps"], one["curves"][tag]["values"])) for one in runs]
    common = sorted(set.intersection(*map(set, curves))) if curves else []
    pace = np.mean([one["seconds_per_step"] or 1 for one in runs]) if clock and runs else 1
    return np.array(common) * pace, [np.mean([curve[step] for curve in curves]) for step in common]


def one_group(axes, tag, runs, colour, weight):
    axes.grid(alpha=0.3)
    axes.set_xlabel("step")
    for one in runs:
        if tag not in one["curves"]:
            continue
        x, y = (np.array(one["curves"][tag][key]) for key in ("steps", "values"))
        if tag == NORM:
            axes.plot(x, y / running_median(y)[0], color=colour, alpha=0.6, linewidth=0.8)
        else:
            axes.plot(x, y, color=colour, alpha=0.2, linewidth=0.8)
            axes.plot(x, smooth(y, weight), color=colour, linewidth=1.5)


if __name__ == "__main__":
    run(main)
