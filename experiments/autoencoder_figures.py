"""Root paths and jerk of six test clips: real, and as each of several autoencoders reconstructs them.

python -m experiments.autoencoder_figures --dataset_name BandaiNamco --run before FSQ_AE_Old sets_old old \
    --run after FSQ_AE_High datasets checkpoints --output_dir results

A --run is a label, the name of a run, its --dataset_dir and --checkpoints_dir. autoencoder_paths.png and
autoencoder_jerk.png: of the clips whose root covers a metre or more, six at even ranks of path length.
"""

from functools import partial
from pathlib import Path

import numpy as np

from utils.analysis.output import new_figure, save
from utils.checkpoints import load_ae
from utils.cli import Parser, run, start
from utils.config import MachineConfig, WeightsConfig, add_flags, from_flags
from utils.data.clips import load_clips
from utils.datasets import TextMotionSet, find_dataset
from utils.eval_utils import EvaluationRun
from utils.evaluation.physical import derivative

CLIPS, SHORTEST_WAY = 6, 1.0  # metres
COLOURS = ["0.6", "C1", "C0", "C2", "C3"]


def flags():
    parser = Parser(__doc__)
    parser.add_argument("--dataset_name", required=True, help="the set that both runs know (needed)")
    parser.add_argument(
        "--run",
        nargs=4,
        action="append",
        required=True,
        metavar=("LABEL", "NAME", "DATASET_DIR", "CHECKPOINTS_DIR"),
        help="may be given several times (needed)",
    )
    parser.add_argument(
        "--output_dir", type=Path, default=Path("results"), help="of the pictures [%(default)s]"
    )
    add_flags(parser, "machine", MachineConfig)
    return parser


def motions_of(source, device, split="test"):
    """Joints [T,J,3] of every clip of a split -> fps, {name: (real, reconstructed)}."""
    autoencoder = load_ae(source, device, source.name)
    spec, root = find_dataset(source.dataset_name, source.dataset_dir, trained_on=autoencoder.spec)
    clips = load_clips(spec, root, split)
    evaluation = EvaluationRun(None, TextMotionSet(clips, autoencoder.normalizer), spec, device)
    pairs = zip(evaluation.real().joints, evaluation.reconstructed(autoencoder.ae).joints, strict=True)
    return spec.fps, dict(zip([clip.name for clip in clips], pairs, strict=True))


def chosen(joints):
    """{name: joints [T,J,3]} -> names of CLIPS clips, at even ranks of the path length of their roots."""
    ways = {name: derivative(x[:, :1, [0, 2]], 1, 1.0).sum() for name, x in joints.items()}
    movers = sorted((name for name in ways if ways[name] >= SHORTEST_WAY), key=ways.get)
    ranks = np.linspace(0, len(movers) - 1, CLIPS + 2).round().astype(int)[1:-1]
    return [movers[rank] for rank in ranks]


def draw(names, rows, plot, path):
    """A panel for each clip. rows: {label: {name: joints}}; plot(axes, joints, **style)."""
    figure = new_figure(11, 6.5)
    for number, (axes, name) in enumerate(zip(figure.subplots(2, CLIPS // 2).flat, names)):
        for (label, joints), colour in zip(rows.items(), COLOURS):
            plot(axes, joints[name], label=label, color=colour, linewidth=3 if label == "real" else 1.2)
        axes.set_title(name, fontsize=8)
        axes.tick_params(labelsize=7)
        if number == 0:
            axes.legend(fontsize=7)
    save(figure, path)


def plot_path(axes, joints, **style):
    """The root seen from above: forward at the start is up, left is left. The dot is the end."""
    x, z = -joints[:, 0, 0], joints[:, 0, 2]
    axes.plot(x, z, **style)
    axes.plot(x[-1], z[-1], "o", color=style["color"], markersize=4)
    axes.set_aspect("equal", adjustable="datalim")


def plot_jerk(axes, joints, fps, **style):
    """Mean jerk of the joints in m/s^3 over seconds."""
    jerk = derivative(joints, 3, fps).mean(axis=1)
    axes.plot(np.arange(len(jerk)) / fps, jerk, **style)


def main(argv=None):
    args = flags().parse_args(argv)
    device = start(from_flags(MachineConfig, args))
    rows = {"real": {}}
    for label, name, dataset_dir, checkpoints_dir in args.run:
        source = from_flags(
            WeightsConfig, args, name=name, dataset_dir=dataset_dir, checkpoints_dir=checkpoints_dir
        )
        fps, pairs = motions_of(source, device)
        rows["real"] |= {clip: real for clip, (real, _) in pairs.items()}
        rows[label] = {clip: recons for clip, (_, recons) in pairs.items()}
    names = chosen(rows["real"])

    args.output_dir.mkdir(parents=True, exist_ok=True)
    draw(names, rows, plot_path, args.output_dir / "autoencoder_paths.png")
    draw(names, rows, partial(plot_jerk, fps=fps), args.output_dir / "autoencoder_jerk.png")


if __name__ == "__main__":
    run(main)
