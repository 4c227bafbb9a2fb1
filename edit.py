"""Keep part of a motion and draw the rest anew from a text.

python edit.py ... --source_motion walk.npy --text_prompt "a person jumps" -msec 0.3,0.6     # fractions
python edit.py ... --source_motion walk.npy --text_prompt "a person waves" -msec 0,40 120,160   # frames
python edit.py ... --source_motion walk.bvh --text_prompt "a person jumps" -msec 0.6,1.0     # a known rig
"""

from pathlib import Path

import numpy as np
import torch

from models.AE import STRIDE
from motion.bvh.rigs import HUMANML3D_BONES, with_bone_lengths
from motion.captions import clean_text
from motion.export import FORMATS, Names, export_motion
from motion.render.rendering import render_video
from motion.skeletons import SMPL22
from utils.cli import Parser, count, run, start
from utils.config import from_flags
from utils.data.bvh_dataset import Reading, read_joint_map, reading_flags
from utils.data.feature_cache import as_float32, load_array
from utils.errors import BadInput
from utils.flags import decoding, generator_flags, output_flags
from utils.generation.prompts import MAX_FRAMES, warn_of_unknown_letters
from utils.motion_process import joints_to_features, recover_from_ric
from utils.pipeline import Pipeline

BONES = ("humanml3d", "own")  # t2m and the demo have the first


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
        help="sections to draw anew, as fractions of the motion (0.3,0.6) or frames (40,80)",
    )
    group.add_argument("--repeat_times", type=count(1, 10**4), default=1, help="edits to draw [%(default)s]")
    group = parser.add_argument_group("a .bvh source")
    reading_flags(group)
    group.add_argument(
        "--bones",
        choices=("auto", *BONES),
        default="auto",
        help="lengths: HumanML3D's, the file's own, or what the autoencoder reproduces best [%(default)s]",
    )
    output_flags(parser, "./editing", FORMATS)
    return parser


def is_bvh(path):
    return Path(path).suffix.lower() == ".bvh"


@torch.no_grad()
def best_reproduced(tokenizer, sources):
    """Of the same motion on several bodies the one that the autoencoder knows. rows [T,dim] each."""

    def error(rows):
        motion = tokenizer.normalizer(rows).to(next(tokenizer.ae.parameters()))[None]
        return float((tokenizer.ae.detokenize(tokenizer.ae.tokenize(motion)[1]) - motion).abs().mean())

    return min(sources, key=error) if len(sources) > 1 else sources[0]


def read_bvh_source(path, spec, reading, bones):
    """A BVH file of a rig that is known or mapped -> joints [T,22,3] at the model's frame rate."""
    if spec.skeleton is not SMPL22:
        raise BadInput(f"--source_motion {path}: a .bvh needs a model of 22 joints; pass features or joints")
    try:
        joints = reading.joints(path)
    except (ValueError, OSError) as error:
        raise BadInput(f"--source_motion {path}: {error}") from None
    return joints if bones == "own" else with_bone_lengths(joints, np.array(HUMANML3D_BONES), SMPL22)


def read_source(path, spec, reading=None, bones="own"):
    """A motion file -> essential rows [T,dim], cut to whole tokens. reading, bones: for a .bvh."""
    if is_bvh(path):
        array = read_bvh_source(path, spec, reading or Reading(spec.fps), bones)
    else:
        array = load_array(path)
    joints, frames = len(spec.skeleton), array.shape[0] if array.ndim else 0
    if frames > MAX_FRAMES + STRIDE:  # before anything is computed of them
        raise BadInput(
            f"--source_motion {path}: {frames} frames; {STRIDE} to {MAX_FRAMES} can be edited: cut it"
        )
    if not np.isfinite(as_float32(array)).all():
        raise BadInput(f"--source_motion {path} holds NaN, infinite or absurd values")
    if array.ndim == 3 and array.shape[1:] == (joints, 3):
        if len(array) < STRIDE + 1:
            raise BadInput(f"--source_motion {path}: {len(array)} frames are too few")
        array = joints_to_features(array, spec.skeleton)
    if array.ndim != 2 or array.shape[1] < spec.dim:
        raise BadInput(
            f"--source_motion {path}: shape {array.shape}; expected rows of at least {spec.dim} columns or "
            f"joints [T,{joints},3]"
        )
    frames = len(array) // STRIDE * STRIDE
    if not STRIDE <= frames <= MAX_FRAMES:
        raise BadInput(
            f"--source_motion {path}: {len(array)} frames; {STRIDE} to {MAX_FRAMES} can be edited: cut it"
        )
    return torch.from_numpy(np.ascontiguousarray(array[:frames, : spec.dim], dtype=np.float32))


def parse_sections(sections, frames):
    """["0.3,0.6", "120,160"] -> bool [L], True on the tokens to be drawn. A bound with a point is a fraction.

    A token is drawn where any of its frames lies in a section.
    """
    mask = torch.zeros(frames // STRIDE, dtype=torch.bool)
    for section in sections:
        bounds = section.split(",")
        try:
            first, last = (round(float(b) * frames, 6) if "." in b else int(b) for b in bounds)
        except ValueError:
            raise BadInput(f"-msec {section}: write two numbers, a,b") from None
        if not 0 <= first < last <= frames:
            raise BadInput(f"-msec {section}: needs 0 <= a < b, within the motion's {frames} frames (or 1.0)")
        mask[int(first) // STRIDE : -int(-last // STRIDE)] = True
    return mask


def main(argv=None):
    args = flags().parse_args(argv)
    prompt = clean_text(args.text_prompt)
    if not prompt:
        raise BadInput("--text_prompt is empty")
    device = start(args)
    pipeline = Pipeline.from_args(args, device)
    spec, normalizer, ae = pipeline.spec, pipeline.tokenizer.normalizer, pipeline.tokenizer.ae
    bones = BONES if args.bones == "auto" and is_bvh(args.source_motion) else (args.bones,)
    reading = from_flags(Reading, args, fps=spec.fps, joint_map=read_joint_map(args.joint_map))
    source = best_reproduced(
        pipeline.tokenizer, [read_source(args.source_motion, spec, reading, kind) for kind in bones]
    )
    frames = len(source)
    sections = parse_sections(args.mask_edit_section, frames)
    warn_of_unknown_letters([prompt], pipeline.text_encoder)
    text = pipeline.embed([prompt])

    n = args.repeat_times
    m_lens = torch.full((n,), frames // STRIDE, device=device)
    _, tokens = ae.tokenize(normalizer(source).to(device)[None])
    snap = args.snap != "off"
    (unedited,), _ = pipeline.decode(tokens, m_lens[:1] * STRIDE, snap)
    drawn = pipeline.mardm.edit(
        ae,
        text.expand(n, -1),
        m_lens,
        tokens.expand(n, -1, -1),
        sections.to(device).expand(n, -1),
        decoding(args, spec),
    )
    kept = ~sections.to(device)
    assert torch.equal(drawn[:, kept], tokens.expand(n, -1, -1)[:, kept]), "a kept token has changed"
    features, joints = pipeline.decode(drawn, m_lens * STRIDE, snap)
    before = recover_from_ric(source, len(spec.skeleton)).numpy()
    kept = kept.repeat_interleave(STRIDE).cpu().numpy()
    report_drift(source.numpy(), unedited, np.stack(features), kept, spec.skeleton)
    folder = Path(args.output_dir) / f"{args.name}_{args.dataset_name}"
    folder.mkdir(parents=True, exist_ok=True)
    names = Names(folder, prefix="editing_caption", plain=args.plain_names)
    for r in range(n):
        stem = names.stem(prompt, 0, r, frames)
        export_motion(stem, joints[r], prompt, spec.fps, spec.skeleton, args.export, features[r])
        if "mp4" in args.export:
            beside = stem.with_name(stem.name + "_beside_source.mp4")
            pair = [before, joints[r]]
            render_video(beside, pair, spec.skeleton, spec.fps, prompt, titles=["source", "edit"])
    print(f"{n} edits in {folder}")


def report_drift(source, unedited, edited, kept, skeleton):
    """How far the frames moved in the body's own frame; rows [T,dim], edited [n,T,dim], kept bool [T].

    Kept tokens are the same, their neighbours not, so that the decoded kept frames change near a section.
    """

    def moved(rows, others, frames):
        apart = (rows - others)[..., frames, 4:]
        return np.linalg.norm(apart.reshape(-1, 3), axis=-1).mean() * skeleton.unit_m * 1000

    if kept.any():
        by_edit, by_both = moved(edited, unedited, kept), moved(edited, source, kept)
        print(f"kept frames: {by_edit:.1f} mm per joint by the edit, {by_both:.1f} mm with the autoencoder")
    print(f"drawn frames: {moved(edited, source, ~kept):.1f} mm" if (~kept).any() else "nothing was drawn")


if __name__ == "__main__":
    run(main)
