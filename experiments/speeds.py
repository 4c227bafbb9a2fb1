"""Do autoencoders keep the speed of slow and of fast motion? A table, one row for each class of real speed.

python -m experiments.speeds --dataset_name CMU --ae_names cmu_AE FSQ_AE_High_equal_long --split train

Speed: the mean horizontal speed of the root (m/s), from frame to frame. A cell is the mean over clips.
"""

import numpy as np

from experiments.autoencoder_figures import motions_of
from utils.analysis.output import markdown
from utils.cli import Parser, run, start
from utils.config import MachineConfig, WeightsConfig, add_flags, from_flags
from utils.data.clips import SPLITS
from utils.evaluation.physical import derivative

BOUNDS = (0, 0.3, 1, 2, np.inf)  # m/s, of the real clip: standing, walking, running, sprinting


def flags():
    parser = Parser(__doc__)
    parser.add_argument("--dataset_name", required=True, help="the set of the clips (needed)")
    parser.add_argument("--dataset_dir", default="./datasets", help="where it lies [%(default)s]")
    parser.add_argument("--checkpoints_dir", default="./checkpoints", help="of the runs [%(default)s]")
    parser.add_argument("--ae_names", nargs="+", required=True, metavar="NAME", help="autoencoders (needed)")
    parser.add_argument("--split", choices=SPLITS, default="test", help="of the clips [%(default)s]")
    add_flags(parser, "machine", MachineConfig)
    return parser


def speed(joints, fps):
    """Mean horizontal speed of the root (m/s); joints [T,J,3] in metres."""
    return derivative(joints[:, :1, [0, 2]], 1, fps).mean()


def table(real, reconstructed, frames):
    """Speeds of N clips [N], {autoencoder: those of its reconstructions [N]}, lengths [N] -> markdown."""
    rows = []
    for low, high in zip(BOUNDS, BOUNDS[1:]):
        inside = (low <= real) & (real < high)
        if inside.any():
            mean = real[inside].mean()
            theirs = [x[inside].mean() for x in reconstructed.values()]
            cells = [f"{one:.2f} ({one / mean - 1:+.0%})" for one in theirs]
            bounds = f"{low:g} to {high:g}" if high < np.inf else f"from {low:g}"
            share = f"{frames[inside].sum() / frames.sum():.1%}"
            rows.append([bounds, inside.sum(), share, f"{mean:.2f}", *cells])
    return markdown(["speed, m/s", "clips", "of all frames", "real", *reconstructed], rows)


def main(argv=None):
    args = flags().parse_args(argv)
    device, reconstructed = start(args), {}
    for name in args.ae_names:
        fps, pairs = motions_of(from_flags(WeightsConfig, args, name=name), device, args.split)
        real, reconstructed[name] = np.array([[speed(x, fps) for x in pair] for pair in pairs.values()]).T
    frames = np.array([len(joints) for joints, _ in pairs.values()])
    print(table(real, reconstructed, frames))


if __name__ == "__main__":
    run(main)
