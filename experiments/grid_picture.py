"""Draw what the coordinates of the grid do: one token's coordinate moved through all its levels, decoded.

  python -m experiments.grid_picture --output docs/pictures/grid.png

A motion is generated from a prompt. One panel per coordinate of the token at one moment: the decoded poses
from its lowest level (blue) to its highest (yellow), other coordinates unchanged; black: the motion's own.
"""

from pathlib import Path

import matplotlib
import numpy as np
import torch

from models.AE import STRIDE
from models.counter_rng import SEED
from motion.render.figure import bones
from utils.analysis.output import check_picture, new_figure, save
from utils.cli import Parser, count, number, run
from utils.errors import BadInput
from utils.pipeline import load

VIEW = np.radians(35)  # from the side, seen from in front


def flags():
    parser = Parser(__doc__)
    parser.add_argument(
        "--run", default="Demo/demo_MARDM", metavar="DATASET/NAME", help="to draw [%(default)s]"
    )
    parser.add_argument("--checkpoints_dir", default="./checkpoints", help="where the run lies [%(default)s]")
    parser.add_argument(
        "--text_prompt", default="a person kicks with their right leg", help="of the motion [%(default)s]"
    )
    parser.add_argument(
        "--moment", type=number(float, 0, 1), default=0.45, help="0 to 1 of the motion [%(default)s]"
    )
    parser.add_argument("--seed", type=count(), default=SEED, help="of the motion [%(default)s]")
    parser.add_argument("--output", type=Path, required=True, help=".png, .pdf or .svg")
    return parser


def main(argv=None):
    args = flags().parse_args(argv)
    check_picture(args.output)
    pipeline = load(args.run, args.checkpoints_dir)
    ae = pipeline.autoencoder.ae
    if not ae.fsq_levels:
        raise BadInput(f"--run {args.run}: its autoencoder has no grid of coordinates")
    (motion,) = pipeline.generate([args.text_prompt], seed=args.seed)
    poses, here = variations(pipeline, motion, args.moment)
    figure = new_figure(1.6 * len(poses), 2.3)
    for d, (axes, levels) in enumerate(zip(figure.subplots(1, len(poses)), poses)):
        draw(axes, levels, here[d], pipeline.spec.skeleton)
        axes.set_title(f"coordinate {d + 1}: {len(levels)} levels", fontsize=8)
    save(figure, args.output)
    print(args.output)


def variations(pipeline, motion, moment):
    """-> poses [levels,J,3] of each coordinate of the token at this moment; the motion's own levels [d]."""
    ae, frames = pipeline.autoencoder.ae, len(motion.features) // STRIDE * STRIDE
    rows = pipeline.autoencoder.normalizer(torch.from_numpy(motion.features[:frames]))
    m_lens = torch.tensor([frames])
    codes = ae.tokenize(rows[None].to(pipeline.device), m_lens)[1]
    token = min(int(moment * codes.shape[1]), codes.shape[1] - 1)
    digits, poses = ae.fsq.codes_to_digits(codes), []
    for d, levels in enumerate(ae.fsq_levels):
        moved = digits.repeat(levels, 1, 1)
        moved[:, token, d] = torch.arange(levels)
        _, joints = pipeline.decode(ae.fsq.digits_to_codes(moved), m_lens.repeat(levels))
        poses.append(np.stack(joints)[:, token * STRIDE + STRIDE // 2])
    return poses, digits[0, token].tolist()


def draw(axes, levels, own, skeleton):
    """levels [n,J,3]: the poses; own: the number of the one that the motion has, drawn in black."""
    pairs = bones(skeleton)[0]
    levels = levels - levels[:, :1] * (1, 0, 1)
    across = levels[..., 0] * np.cos(VIEW) - levels[..., 2] * np.sin(VIEW)
    colours = matplotlib.colormaps["plasma"](np.linspace(0, 0.9, len(levels)))
    for k, pose in enumerate(np.stack([across, levels[..., 1]], axis=-1)):
        style = {"color": "black", "zorder": 3} if k == own else {"color": colours[k], "alpha": 0.8}
        for pair in pairs:
            axes.plot(*pose[pair].T, linewidth=2, solid_capstyle="round", **style)
    axes.set(aspect="equal", xlim=(-0.65, 0.65), ylim=(-0.05, 1.75))
    axes.axis("off")


if __name__ == "__main__":
    run(main)
