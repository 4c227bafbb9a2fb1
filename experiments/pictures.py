"""Draw motions of a trained generator: a video (.gif, .mp4), or a .png with moments of each motion in a row.

  python -m experiments.pictures --text_path docs/pictures/demo.txt --seed 2 --output docs/pictures/demo.gif
  python -m experiments.pictures --run CMU/cmu_MARDM --text_path prompts.txt --output results/cmu_prompts.png

A line of the file is a prompt, or prompt#frames.
"""

from dataclasses import asdict
from pathlib import Path

from models.counter_rng import SEED
from motion.render.rendering import VIDEO_OPTIONS, contact_sheet, render_video
from utils.cli import Parser, count, run
from utils.config import SamplingFlags, add_flags, from_flags
from utils.errors import BadInput
from utils.generation.prompts import read_prompts
from utils.pipeline import load


def flags():
    parser = Parser(__doc__)
    parser.add_argument("--run", default="Demo/demo_MARDM", metavar="DATASET/NAME", help="[%(default)s]")
    parser.add_argument("--checkpoints_dir", default="./checkpoints", help="where the run lies [%(default)s]")
    parser.add_argument("--text_path", required=True, help="file of prompts")
    parser.add_argument("--seed", type=count(), default=SEED, help="[%(default)s]")
    parser.add_argument("--moments", type=count(2), default=8, help="of a row of a .png [%(default)s]")
    parser.add_argument("--panel", type=count(64), default=256, help="pixels of a side [%(default)s]")
    parser.add_argument("--output", type=Path, required=True, help=".gif, .mp4 or .png")
    add_flags(parser, "sampling", SamplingFlags)
    return parser


def main(argv=None):
    args = flags().parse_args(argv)
    if args.output.suffix not in (*VIDEO_OPTIONS, ".png"):
        raise BadInput(f"--output {args.output}: pictures are written as .gif, .mp4 or .png")
    prompts = read_prompts([], args.text_path, 0)
    pipeline = load(args.run, args.checkpoints_dir)
    texts, seconds = zip(*((prompt.text, prompt.frames / pipeline.spec.fps or None) for prompt in prompts))
    how = asdict(from_flags(SamplingFlags, args))
    motions = pipeline.generate(list(texts), seconds=list(seconds), seed=args.seed, **how)
    drawn = {"motions": [motion.joints for motion in motions], "skeleton": pipeline.spec.skeleton}
    drawn |= {"titles": list(texts), "panel": args.panel, "fps": pipeline.spec.fps}
    if args.output.suffix == ".png":
        contact_sheet(args.output, **drawn, n_frames=args.moments)
    else:
        render_video(args.output, **drawn)
    print(args.output)


if __name__ == "__main__":
    run(main)
