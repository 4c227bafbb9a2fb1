"""Draw the training curves of one run, or of several together, from their TensorBoard event files.

python plot_loss.py --log_dir checkpoints/t2m/AE/model
python plot_loss.py --log_dirs checkpoints/t2m/AE checkpoints/t2m/FSQ --names AE FSQ --metric Val/loss
python plot_loss.py --log_dir checkpoints/t2m/FSQ/model --all
"""

import utils.environment  # noqa: F401  # isort: skip
from pathlib import Path

import numpy as np

from motion.export import safe_caption
from utils.analysis.event_files import check_names, read_points, run_name, smooth
from utils.analysis.output import check_picture, new_figure, save
from utils.cli import Parser, number, run
from utils.errors import BadInput


def parse(argv):
    parser = Parser(__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--log_dir", type=Path, help="folder of one run with its event files")
    source.add_argument("--log_dirs", type=Path, nargs="+", help="folders of several runs, drawn together")
    parser.add_argument("--names", nargs="+", help="their names in the legend [the folders']")
    parser.add_argument(
        "--output", type=Path, default=Path("loss_curve.png"), help="png, pdf or svg [%(default)s]"
    )
    parser.add_argument(
        "--smooth",
        type=number(float, 0, 0.9999),
        default=0.9,
        help="smoothing: weight of the past, 0 = off [%(default)s]",
    )
    parser.add_argument("--metric", default="Train/loss", help="scalar to plot [%(default)s]")
    parser.add_argument("--all", action="store_true", help="one picture for every scalar, in --output_dir")
    parser.add_argument("--output_dir", type=Path, help="folder for --all [<run>_curves]")
    args = parser.parse_args(argv)
    for flag in ("output", "metric") if args.all else ("output_dir",):
        if getattr(args, flag) != parser.get_default(flag):
            raise BadInput(f"--{flag} has no effect {'with' if args.all else 'without'} --all: leave it out")
    args.log_dirs = args.log_dirs or [args.log_dir]
    args.names = args.names or distinct([run_name(folder) for folder in args.log_dirs])
    check_names(args.names, args.log_dirs)
    check_picture(args.output)
    args.output_dir = args.output_dir or Path("_vs_".join(map(run_name, args.log_dirs)) + "_curves")
    return args


def distinct(names):
    """Number the runs that have the same name in different data sets."""
    return [f"{name} {i + 1}" if names.count(name) > 1 else name for i, name in enumerate(names)]


def draw(path, tag, runs, weight):
    """One picture: for every run that has the scalar the raw curve, faint, and the smoothed one over it."""
    have = {name: scalars[tag] for name, scalars in runs.items() if tag in scalars}
    if not have:
        tags = sorted({tag for scalars in runs.values() for tag in scalars})
        raise BadInput(f"{tag}: no such scalar in {', '.join(runs)}; there are {', '.join(tags)}")
    figure = new_figure(8, 5)
    axes = figure.add_subplot(xlabel="step", ylabel=tag)
    axes.grid(alpha=0.3)
    for i, (name, (steps, values, _)) in enumerate(have.items()):
        colour = f"C{i}"
        # two evaluations make no curve to smooth, and a lone point is invisible as a line
        few = {"marker": "o", "markersize": 3} if len(steps) < 40 else {}
        if weight:
            axes.plot(steps, values, color=colour, alpha=0.25, linewidth=1, **few)
        lost = np.count_nonzero(~np.isfinite(values))
        label = name + (f" ({lost} values not finite)" if lost else "")
        axes.plot(
            steps, smooth(values, weight), color=colour, linewidth=2, label=label, **({} if weight else few)
        )
    axes.set_title(tag + (f", smoothed {weight:g}" if weight else ""))
    axes.legend()
    save(figure, path)


def main(argv=None):
    args = parse(argv)
    runs = {name: read_points(folder) for name, folder in zip(args.names, args.log_dirs)}
    if not args.all:
        draw(args.output, args.metric, runs, args.smooth)
        print(f"{args.metric}: {args.output}")
        return
    tags = sorted({tag for scalars in runs.values() for tag in scalars})
    for tag in tags:
        draw(args.output_dir / f"{safe_caption(tag, plain=True)}.png", tag, runs, args.smooth)
    print(f"{len(tags)} curves: {args.output_dir}")


if __name__ == "__main__":
    run(main)
