"""Keep part of a motion and draw the rest anew from a text.

python edit.py ... --source_motion walk.npy --text_prompt "a person jumps" -msec 0.3,0.6     # fractions
python edit.py ... --source_motion walk.npy --text_prompt "a person waves" -msec 0,40 120,160   # frames
"""

from pathlib import Path

import numpy as np
import torch

from models.AE import STRIDE
from motion.export import FORMATS, Names, export_motion
from motion.rendering import render_video
from utils.cli import (
    Parser,
    count,
    decoding,
    generator_flags,
    output_flags,
    run,
    start,
)
from utils.errors import BadInput
from utils.motion_process import joints_to_features, recover_from_ric
from utils.packed import load_array
from utils.pipeline import MAX_FRAMES, Pipeline


def flags():
    parser = Parser(__doc__)
    generator_flags(parser)
    group = parser.add_argument_group("what to edit")
    group.add_argument(
        "--source_motion", required=True, help=".npy: feature rows [T,67|263] or joints [T,22,3]"
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
    output_flags(parser, "./editing", FORMATS)
    return parser


def read_source(path, spec):
    """A motion file -> essential rows [T,dim], cut to whole tokens."""
    array = load_array(path)
    joints = len(spec.skeleton)
    if array.ndim == 3 and array.shape[1:] == (joints, 3):
        if len(array) < STRIDE + 1:
            raise BadInput(f"--source_motion {path}: {len(array)} frames are too few")
        array = joints_to_features(array, spec.skeleton)
    if array.ndim != 2 or array.shape[1] < spec.dim:
        raise BadInput(
            f"--source_motion {path}: shape {array.shape}; expected rows of at least {spec.dim} columns or "
            f"joints [T,{joints},3]"
        )
    if not np.isfinite(array).all():
        raise BadInput(f"--source_motion {path} holds NaN or infinite values")
    frames = len(array) // STRIDE * STRIDE
    if not STRIDE <= frames <= MAX_FRAMES:
        raise BadInput(f"--source_motion {path}: {len(array)} frames; {STRIDE} to {MAX_FRAMES} can be edited")
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
    if not args.text_prompt.strip():
        raise BadInput("--text_prompt is empty")
    device = start(args)
    pipeline = Pipeline.from_args(args, device)
    spec, normalizer, ae = pipeline.spec, pipeline.tokenizer.normalizer, pipeline.tokenizer.ae
    source = read_source(args.source_motion, spec)
    frames = len(source)
    sections = parse_sections(args.mask_edit_section, frames)
    text = pipeline.embed([args.text_prompt])

    n = args.repeat_times
    m_lens = torch.full((n,), frames // STRIDE, device=device)
    _, tokens = ae.tokenize(normalizer(source).to(device)[None])
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
    features, joints = pipeline.decode(drawn, m_lens * STRIDE, snap=args.snap != "off")
    before = recover_from_ric(source, len(spec.skeleton)).numpy()
    report_drift(before, np.stack(joints), kept.repeat_interleave(STRIDE).cpu().numpy(), spec)
    folder = Path(args.output_dir) / f"{args.name}_{args.dataset_name}"
    folder.mkdir(parents=True, exist_ok=True)
    names = Names(folder, prefix="editing_caption", plain=args.plain_names)
    for r in range(n):
        stem = names.stem(args.text_prompt, 0, r, frames)
        caption = args.text_prompt
        export_motion(stem, joints[r], caption, spec.fps, spec.skeleton, args.export, features[r])
        if "mp4" in args.export:
            beside = stem.with_name(stem.name + "_beside_source.mp4")
            pair = [before, joints[r]]
            render_video(beside, pair, spec.skeleton, spec.fps, caption, titles=["source", "edit"])
    print(f"{n} edits in {folder}")


def report_drift(before, joints, kept, spec):
    """How far the kept frames moved in the body's frame: their tokens are the same, their neighbours not."""
    body = [x - x[..., :1, :] for x in (before, joints)]
    moved = np.linalg.norm(body[1] - body[0], axis=-1) * spec.skeleton.unit_m * 1000
    if kept.any():
        print(f"kept frames: {moved[:, kept].mean():.1f} mm from the source per joint (autoencoder included)")
    print(f"drawn frames: {moved[:, ~kept].mean():.1f} mm" if (~kept).any() else "nothing was drawn")


if __name__ == "__main__":
    run(main)
