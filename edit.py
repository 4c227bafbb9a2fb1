"""Keep part of a motion and draw the rest anew from a text.

python edit.py ... --source_motion walk.npy --text_prompt "a person jumps" -msec 0.3,0.6     # fractions
python edit.py ... --source_motion walk.npy --text_prompt "a person waves" -msec 0,40 120,160   # frames
python edit.py ... --source_motion walk.bvh --text_prompt "a person jumps" -msec 0.6,1.0     # a known rig

What is kept stands where it stood in the source's world. A .bvh source gives a .bvh beside the other files.
"""

import utils.environment  # noqa: F401  # isort: skip
from pathlib import Path

import numpy as np
import torch

from models.AE import STRIDE
from motion.bvh.rigs import bone_lengths
from motion.captions import clean_text
from motion.export import FORMATS, Names, export_motion, in_place
from motion.render.rendering import render_video
from utils.cli import Parser, count, run, start
from utils.config import WeightsConfig, from_flags
from utils.data.bvh_dataset import Reading, read_joint_map, reading_flags
from utils.errors import BadInput
from utils.flags import generator_flags, output_flags, sampling_config
from utils.generation.anchoring import align, anchor, on_bones, runs
from utils.generation.edit_source import (
    BONES,
    best_reproduced,
    bodies,
    is_bvh,
    joints_of,
    model_rows,
    read_source,
)
from utils.generation.windows import draw_hidden
from utils.pipeline import Pipeline

BATCH = 32  # edits at a time


def flags():
    parser = Parser(__doc__)
    generator_flags(parser)
    group = parser.add_argument_group("what to edit")
    group.add_argument(
        "--source_motion",
        required=True,
        help=".npy: feature rows [T,67|263] or joints [T,22,3]; or .bvh, brought to the model's frame rate",
    )
    group.add_argument("--text_prompt", required=True, help="what the new part shows")
    group.add_argument(
        "-msec",
        "--mask_edit_section",
        nargs="+",
        required=True,
        metavar="a,b",
        help="sections to draw anew: fractions of the motion if written with a point (0.3,0.6), else frames "
        "(40,80)",
    )
    group.add_argument("--repeat_times", type=count(1, 10**4), default=1, help="edits to draw [%(default)s]")
    group.add_argument(
        "--bones",
        choices=("auto", *BONES),
        default="auto",
        help="the body on which the model sees a motion of 22 joints: the source's, HumanML3D's, or what the "
        "autoencoder reproduces best; the result has the source's [%(default)s]",
    )
    reading_flags(parser.add_argument_group("a .bvh source"))
    output_flags(parser, "./editing", FORMATS)
    return parser


def parse_section(section, frames):
    """ "0.3,0.6" or "120,160" -> (first, last) in frames, numbers. A bound with a point is a fraction."""
    try:
        first, last = (round(float(b) * frames, 6) if "." in b else int(b) for b in section.split(","))
    except ValueError:
        raise BadInput(f"-msec {section}: write two numbers, a,b") from None
    if not 0 <= first < last <= frames:
        raise BadInput(f"-msec {section}: needs 0 <= a < b, within the motion's {frames} frames (or 1.0)")
    return first, last


def parse_sections(sections, frames):
    """["0.3,0.6", "120,160"] -> bool [L], True on the tokens to be drawn: those with a frame in a section."""
    mask = torch.zeros(-(-frames // STRIDE), dtype=torch.bool)
    for section in sections:
        first, last = parse_section(section, frames)
        mask[int(first) // STRIDE : -int(-last // STRIDE)] = True
    return mask


def describe_sections(sections, mask, frames, fps):
    """Lines that say what is drawn anew, in frames and seconds."""
    for section in sections:
        first, last = parse_section(section, frames)
        unit = "fractions" if "." in section else "frames"
        yield f"-msec {section}, read as {unit}: {first / fps:.2f} to {last / fps:.2f} s"
    spans = [(STRIDE * a, min(STRIDE * b, frames)) for a, b in runs(mask)]
    drawn = ", ".join(f"frames {a} to {b} ({a / fps:.2f} to {b / fps:.2f} s)" for a, b in spans)
    yield f"drawn anew, in whole tokens of {STRIDE} frames: {drawn}, of {frames} frames"


def place_edit(rows, source, kept, spec):
    """Decoded rows [T',D] on the source's body -> (rows [T,D], joints [T,J,3] in its world, list of Bend)."""
    frames = len(source.joints)
    rows, bends = anchor(rows[:frames], source.rows[:frames], kept)
    fixed = kept if kept.any() else np.arange(frames) == 0
    return rows, align(joints_of(rows, spec), source.joints, fixed), bends


def describe_edit(joints, rows, source, kept, bends, spec):
    """Lines that say how far an edit went."""
    unit, frames = spec.skeleton.unit_m, len(joints)
    if kept.any():
        apart = 1000 * unit * np.linalg.norm(joints - source.joints, axis=-1)[kept]
        yield f"kept frames: {apart.mean():.1f} mm from the source in its world, at most {apart.max():.1f}"
    if not kept.all():
        local = (rows - source.rows[:frames])[~kept, 4:].reshape(-1, 3)
        by = 1000 * unit * np.linalg.norm(local, axis=-1).mean()
        yield f"drawn frames: {by:.0f} mm per joint from the source, seen from the root"
    for bend in bends:
        yield (
            f"frames {bend.first} to {bend.last}: turned by {bend.degrees:.0f} degrees and moved by "
            f"{bend.metres * unit:.2f} m to meet the kept frames"
        )


def main(argv=None):
    args = flags().parse_args(argv)
    prompt = clean_text(args.text_prompt)
    if not prompt:
        raise BadInput("--text_prompt is empty")
    device = start(args)
    pipeline = Pipeline.open(from_flags(WeightsConfig, args), device)
    spec, sampling = pipeline.spec, sampling_config(args, pipeline.spec, pipeline.mardm)
    reading = from_flags(Reading, args, fps=spec.fps, joint_map=read_joint_map(args.joint_map))
    source = read_source(args.source_motion, spec, reading)
    frames = len(source.joints)
    sections = parse_sections(args.mask_edit_section, frames)
    print(f"source: {frames} frames at {spec.fps:g} per second, to which a .bvh is resampled")
    print(*describe_sections(args.mask_edit_section, sections, frames, spec.fps), sep="\n")
    text = pipeline.embed([prompt])
    for line in pipeline.warnings([prompt], text):
        print(f"warning: {line}")

    by_body = bodies(source, spec, args.bones)
    body = best_reproduced(pipeline.tokenizer, by_body)
    with torch.no_grad():
        _, tokens = pipeline.tokenizer.ae.tokenize(model_rows(pipeline.tokenizer, by_body[body]))
    kept = ~sections.repeat_interleave(STRIDE)[:frames].numpy()
    own_bones = bone_lengths(source.joints, spec.skeleton)

    folder = Path(args.output_dir) / f"{args.name}_{args.dataset_name}"
    folder.mkdir(parents=True, exist_ok=True)
    names = Names(folder, prefix="editing_caption", plain=not args.mardm_names)
    formats = dict.fromkeys([*args.export, "bvh"] if is_bvh(args.source_motion) else args.export)
    for r in range(args.repeat_times):
        if r % BATCH == 0:
            repeats = range(r, min(r + BATCH, args.repeat_times))
            n = len(repeats)
            batch = draw_hidden(
                pipeline,
                text.expand(n, *text.shape[1:]),
                tokens.expand(n, -1, -1),
                sections,
                sampling,
                repeats,
            )
        lengths = torch.tensor([tokens.shape[1] * STRIDE], device=device)
        (rows,), _ = pipeline.decode(batch[r % BATCH][None], lengths, sampling.snap != "off")
        if body != "own":
            rows = on_bones(rows.astype(np.float64), own_bones)
        rows, joints, bends = place_edit(rows, source, kept, spec)
        print(*describe_edit(joints, rows, source, kept, bends, spec), sep="\n")
        stem = names.stem(prompt, 0, r, frames)
        if args.in_place:
            joints = in_place(joints)
        export_motion(stem, joints, prompt, spec.fps, spec.skeleton, formats, rows)
        if "mp4" in formats:
            beside = stem.with_name(stem.name + "_beside_source.mp4")
            pair, titles = [source.joints, joints], ["source", "edit"]
            render_video(beside, pair, spec.skeleton, spec.fps, prompt, titles=titles)
    print(f"{args.repeat_times} edits in {folder}")


if __name__ == "__main__":
    run(main)
