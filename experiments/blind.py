"""Judge two or more generators by eye without knowing which is which.

  python -m experiments.blind --runs CMU/cmu_MARDM CMU/NAME --text_path results/cmu_own_prompts.txt

draws a picture per prompt, the motions of all runs and seeds in rows of random order, and blind/order.json,
not to be opened. For each picture write a line into a file: 1 or 0 per row, whether it shows its prompt. Then

  python -m experiments.blind --judged marks.txt

counts them for each run.
"""

import random
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from motion.files import write_json
from motion.render.rendering import contact_sheet
from utils.cli import Parser, count, number, run
from utils.config import SamplingFlags, add_flags, from_flags
from utils.errors import BadInput
from utils.generation.prompts import read_prompts
from utils.pipeline import load
from utils.plain import parse_json, read_utf8


def flags():
    parser = Parser(__doc__)
    parser.add_argument("--runs", nargs="+", metavar="DATASET/NAME", help="two or more, to be drawn")
    parser.add_argument("--checkpoints_dir", default="./checkpoints", help="where they lie [%(default)s]")
    parser.add_argument("--text_path", help="file of prompts")
    parser.add_argument("--seeds", type=count(), nargs="+", default=[1, 2], help="of the motions [1 2]")
    parser.add_argument(
        "--seconds", type=number(float, 0.1, 16), default=5.0, help="of each motion [%(default)s]"
    )
    parser.add_argument("--moments", type=count(2), default=10, help="of a row [%(default)s]")
    parser.add_argument("--panel", type=count(64), default=128, help="pixels of a side [%(default)s]")
    parser.add_argument("--judged", type=Path, help="file of marks: count them and draw nothing")
    parser.add_argument(
        "--output_dir", type=Path, default=Path("blind"), help="of the pictures [%(default)s]"
    )
    add_flags(parser, "sampling of all runs", SamplingFlags)
    return parser


def main(argv=None):
    args = flags().parse_args(argv)
    if args.judged:
        for name, (right, of) in tally(read_order(args.output_dir), read_utf8(args.judged).split()).items():
            print(f"{name}: {right} of {of} show their prompt")
        return
    if not args.runs or not args.text_path:
        raise BadInput("--runs and --text_path say what to draw, --judged which marks to count")
    prompts = [prompt.text for prompt in read_prompts([], args.text_path, 0)]
    drawn, how = {}, asdict(from_flags(SamplingFlags, args))
    for name in args.runs:
        pipeline = load(name, args.checkpoints_dir)
        for seed in args.seeds:
            drawn[name, seed] = pipeline.generate(prompts, seconds=args.seconds, seed=seed, **how)
    draw_sheets(drawn, prompts, args.output_dir, args.moments, args.panel)


def draw_sheets(drawn, prompts, folder, moments=10, panel=128):
    """Write a picture per prompt and order.json. drawn: {(name, seed): a motion for each prompt}"""
    order = []
    for i, prompt in enumerate(prompts):
        rows = random.sample(list(drawn), len(drawn))
        order.append([name for name, _ in rows])
        motions = [drawn[row][i] for row in rows]
        path = contact_sheet(
            folder / f"{i + 1:02}.png",
            [one.joints for one in motions],
            motions[0].skeleton,
            motions[0].fps,
            titles=[f"{k}  {prompt}" for k in range(1, len(rows) + 1)],
            n_frames=moments,
            panel=panel,
        )
        print(path)
    write_json(folder / "order.json", order)


def read_order(folder):
    """What `draw_sheets` wrote into its folder: for each picture the names of its rows' runs. Or BadInput."""
    file = folder / "order.json"
    try:
        order = parse_json(read_utf8(file))
        if not all(isinstance(name, str) for rows in order for name in rows):
            raise ValueError("a name is no text")
    except (ValueError, TypeError):
        raise BadInput(f"{file} is not what drawing the pictures wrote: draw and judge them anew") from None
    return order


def tally(order, marks):
    """order: each picture's rows, the names of their runs; marks: a "1001" for each. -> run -> (right, of)"""
    if [len(rows) for rows in order] != [len(line) for line in marks] or set("".join(marks)) - set("01"):
        raise BadInput(f"--judged needs {len(order)} lines, each with a 1 or 0 for each row of its picture")
    pairs = [(name, mark) for rows, line in zip(order, marks) for name, mark in zip(rows, line)]
    of, right = Counter(name for name, _ in pairs), Counter(name for name, mark in pairs if mark == "1")
    return {name: (right[name], of[name]) for name in sorted(of)}


if __name__ == "__main__":
    run(main)
