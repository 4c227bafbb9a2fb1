"""Text in, motion out: mp4 and npy in generation/<name>_<dataset>/.

python sample.py --demo --text_prompt "a person walks forward" --motion_length 120
python sample.py --name FSQ_MARDM ...               # a trained generator
python sample.py ... --text_path prompts.txt        # one per line; prompt#120: 120 frames, #NA: estimated
python sample.py ... --text_path story.txt --stitch # the prompts become one long motion
python sample.py ... --waypoints "0,1.5@2 1,3@4:90"  # places x,z in metres @ seconds, at the last facing +X
"""

import utils.environment  # noqa: F401  # isort: skip
from dataclasses import asdict

import numpy as np
from tqdm import tqdm

from models.AE import STRIDE
from models.LengthEstimator import MAX_FRAMES
from motion.bvh.rigs import changing_bone
from motion.export import FORMATS, Motion, Names, export_motion, in_place
from motion.feet import fix_feet
from utils.cli import Parser, count, run, start
from utils.config import WeightsConfig, from_flags
from utils.errors import BadInput
from utils.flags import generator_flags, output_flags, output_folder, sampling_config, settled
from utils.generation.loops import draw_loops
from utils.generation.prompts import frames_as_words, read_prompts
from utils.generation.record import Record, hashes
from utils.generation.single_motions import Texts, draw_each
from utils.generation.stitch import TRANSITION, draw_stories
from utils.generation.waypoints import (
    CANDIDATES,
    Arrival,
    draw_routes,
    frames_for,
    parse_waypoints,
    read_waypoints,
)
from utils.generation.windows import MOST_REPEATS
from utils.metrics import foot_skate
from utils.pipeline import Pipeline


def flags():
    parser = Parser(__doc__)
    generator_flags(parser)
    group = parser.add_argument_group("what to generate")
    source = group.add_mutually_exclusive_group(required=True)
    source.add_argument("--text_prompt", action="append", help="a prompt; more by giving the flag again")
    source.add_argument(
        "--text_path",
        help='a file of prompts, one a line; prompt#120: 120 frames (the last # counts); "# ": a comment',
    )
    source.add_argument(
        "--list_actions",
        action="store_true",
        help="print what released weights know: actions with an example each, or captions",
    )
    group.add_argument(
        "--motion_length",
        type=count(0, MAX_FRAMES),
        default=0,
        help="frames, rounded down to a multiple of 4 [0 = estimate]",
    )
    group.add_argument(
        "--repeat_times", type=count(1, 10**4), default=1, help="motions per prompt [%(default)s]"
    )
    group.add_argument(
        "--batch_size",
        type=count(1, 10**4),
        default=32,
        help="motions at a time; not of --stitch, --loop and --waypoints [%(default)s]",
    )
    group.add_argument(
        "--fix_feet",
        action="store_true",
        help="hold standing feet in place (joints, not features), as --waypoints always does",
    )
    kinds = group.add_mutually_exclusive_group()
    kinds.add_argument("--stitch", action="store_true", help="the prompts become one motion of any length")
    kinds.add_argument(
        "--loop", action="store_true", help="the last frame of every motion flows into its first"
    )
    group.add_argument(
        "--transition",
        type=count(STRIDE, MAX_FRAMES // 2),
        help="frames regenerated around each join of --stitch and the seam of --loop, rounded down to a "
        f"multiple of 4, at most a third of either part [{TRANSITION}]",
    )
    kinds.add_argument(
        "--waypoints",
        metavar="X,Z@SECONDS[:DEGREES]",
        help="places in metres that every motion passes, in one string; it starts at 0,0, in any direction",
    )
    group.add_argument(
        "--candidates",
        type=count(1, 1000),
        help=f"motions drawn for --waypoints, of which the best is kept [{CANDIDATES}]",
    )
    output_flags(parser, "./generation", FORMATS)
    return parser


def parse(argv):
    """The flags; BadInput for flags without effect, and for flags that undo each other."""
    args = flags().parse_args(argv)
    if args.transition and not (args.stitch or args.loop):
        raise BadInput("--transition belongs to --stitch and --loop: add one of them, or leave it out")
    if args.candidates and args.waypoints is None:
        raise BadInput("--candidates belongs to --waypoints: add them, or leave it out")
    if args.in_place and args.waypoints is not None:
        raise BadInput("--in_place removes the movement that --waypoints asks for: leave one of them out")
    if args.waypoints is not None:
        read_waypoints(args.waypoints)  # before weights are loaded, which know the frames per second
    args.transition, args.candidates = args.transition or TRANSITION, args.candidates or CANDIDATES
    drawings = args.repeat_times * args.candidates
    if args.waypoints is not None and drawings > MOST_REPEATS:  # more would use the next prompt's noise
        raise BadInput(
            f"--repeat_times x --candidates are {drawings:,} drawings of a prompt, {MOST_REPEATS:,} are the "
            "most: lower one of them"
        )
    return args


def list_of_actions(pipeline):
    """A line for each label of the training set, with an example; without labels, for each known caption."""
    known = pipeline.captions
    if not known:
        raise BadInput(f"{pipeline.paths[1]} does not list its captions: scripts/release.py adds the list")
    actions = [f"{label:24} {caption}" for label, caption in known.actions.items()]
    return "\n".join(actions or known.texts)


def hold_feet(joints, spec, pinned):
    """joints [T,J,3] with standing feet held in place, and the foot skate before and after."""
    fixed = fix_feet(joints, spec.fps, spec.skeleton, pinned)
    in_metres = [clip * spec.skeleton.unit_m for clip in (joints, fixed)]
    return fixed, [foot_skate([clip], spec.skeleton.feet, spec.fps) for clip in in_metres]


def main(argv=None):
    args = parse(argv)
    if args.list_actions:
        pipeline = Pipeline.open(from_flags(WeightsConfig, args), start(args))
        print(list_of_actions(pipeline))
        return
    prompts = read_prompts(args.text_prompt, args.text_path, args.motion_length)
    if args.stitch and len(prompts) < 2:
        raise BadInput(
            "--stitch joins prompts: give two or more, each by --text_prompt or all by --text_path"
        )
    folder = output_folder(args)  # before weights are loaded
    device = start(args)

    pipeline = Pipeline.open(from_flags(WeightsConfig, args), device)
    spec = pipeline.spec
    sampling = sampling_config(args, spec)
    decoding = settled(sampling, pipeline.mardm)
    print(pipeline.mardm.describe_sampling(decoding))
    words = [prompt.text for prompt in prompts]
    text = pipeline.embed(words)
    for line in pipeline.warnings(words, text):
        print(f"warning: {line}")
    for end in filter(None, map(frames_as_words, words if args.text_prompt else [])):
        print(f"warning: {end} is read as words: --motion_length sets the frames of --text_prompt")
    frames = [prompt.frames for prompt in prompts]
    points = parse_waypoints(args.waypoints, spec.fps) if args.waypoints is not None else None
    if points:
        frames = [frames_for(points, n) for n in frames]
    texts = Texts(words, text, pipeline.lengths(text, frames, args.seed))

    folder.mkdir(parents=True, exist_ok=True)
    names = Names(folder, plain=not args.mardm_names)
    record = Record(
        folder / "samples.json",
        flags=vars(args),
        decoding=asdict(decoding),
        text_encoder=pipeline.text_encoder,
        sha256=hashes(pipeline.paths),
    )
    if points:
        draw, option = draw_routes, (points, args.candidates)
    elif args.stitch:
        draw, option = draw_stories, args.transition // STRIDE
    elif args.loop:
        draw, option = draw_loops, args.transition // STRIDE
    else:
        draw, option = draw_each, args.batch_size
    total = args.repeat_times * (1 if args.stitch else len(prompts))
    drawn = draw(pipeline, texts, sampling, args.repeat_times, option)
    skates = []
    try:
        for made, rows, joints in tqdm(drawn, desc="motions", unit="motion", total=total):
            if points:
                tqdm.write(str(Arrival(**made["waypoints"])))
            if args.fix_feet and not points:
                # the frames on both sides of a loop's seam are pinned: feet stand as they do there
                seam = np.isin(np.arange(len(joints)), (0, len(rows) - 1, len(rows))) if args.loop else None
                joints, skate = hold_feet(joints, spec, seam)
                skates.append(skate)
            joints = in_place(joints) if args.in_place else joints
            joints, closing = (joints[:-1], joints[-1:]) if args.loop else (joints, None)
            stem = names.stem(made["prompt"], made["sample"], made["repeat"], len(joints))
            caption = " → ".join(part["prompt"] for part in made.get("prompts", [made]))
            motion = Motion(joints, caption, spec.fps, spec.skeleton, rows, closing=closing)
            files = export_motion(stem, motion, args.export)
            record.add(made | {"frames": len(joints), "files": [path.name for path in files.values()]})
            if flaw := changing_bone(joints, spec.skeleton, spec.fps):
                tqdm.write(f"warning: {stem.name}: {flaw}")
    finally:
        record.write()  # also of an interrupted run
    if skates:
        before, after = np.mean(skates, axis=0)
        print(f"foot skate {before:.3f}, after --fix_feet {after:.3f} (mean of {len(skates)} motions)")
    print(f"{total} motions in {folder}")


if __name__ == "__main__":
    run(main)
