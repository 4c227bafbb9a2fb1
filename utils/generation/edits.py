"""An edit: which tokens of which source are drawn anew, around which keyframes; how far it went."""

# T frames, L = ceil(T/4) tokens, J joints, D essential columns

from dataclasses import dataclass

import numpy as np
import torch

from models.AE import STRIDE
from motion.bvh.rigs import bone_lengths
from motion.feet import fix_feet, stretches
from motion.skeletons import SMPL22
from utils.errors import BadInput
from utils.generation.anchoring import align, anchor, on_bones
from utils.generation.edit_source import Source, best_reproduced, bodies, joints_of, model_rows, read_source
from utils.generation.keyframes import held, hurried, meet, read_keyframes, still
from utils.generation.windows import draw_hidden

BATCH = 32  # edits at a time
SUNK_M = 0.03  # metres below the floor that pass without a word
BODIES = {"own": "of its source", "humanml3d": "of HumanML3D"}


def parse_section(section, frames):
    """ "0.3,0.6" or "120,160" -> (first, last) in frames. With a point in it both are fractions."""
    fractions = "." in section
    try:
        first, last = (round(float(b) * frames, 6) if fractions else int(b) for b in section.split(","))
    except ValueError:
        raise BadInput(f"-msec {section}: write two numbers, a,b") from None
    if not 0 <= first < last <= frames:
        raise BadInput(f"-msec {section}: needs 0 <= a < b, within the motion's {frames} frames (or 1.0)")
    return first, last


def parse_sections(sections, frames):
    """["0.3,0.6", "120,160"] -> bool [L]: the tokens to draw anew, those with a frame in a section."""
    mask = torch.zeros(-(-frames // STRIDE), dtype=torch.bool)
    for section in sections:
        first, last = parse_section(section, frames)
        mask[int(first) // STRIDE : -int(-last // STRIDE)] = True
    return mask


@dataclass(frozen=True)
class EditConfig:
    """What the user asks for; fields are flags of edit.py."""

    source_motion: str | None = None
    mask_edit_section: list | None = None
    keep_pose: list | None = None
    motion_length: int | None = None
    bones: str = "auto"  # see `bodies`


@dataclass(frozen=True)
class Plan:
    """What an edit starts from and what it draws."""

    source: Source
    drawn: torch.Tensor  # bool [L]
    keyframes: tuple  # of Keyframe, all in drawn frames
    bones: str

    @property
    def kept(self):
        """bool [T], True on the frames that stay as they are."""
        return ~self.drawn.repeat_interleave(STRIDE)[: len(self.source.joints)].numpy()

    @property
    def own(self):
        """The frames that set a file's bone lengths (see `Motion`), so that kept frames stay as they were."""
        return self.kept if self.kept.any() else None


def read_plan(asked, spec, reading):
    """EditConfig -> (Plan, lines for the user). reading: how to read a .bvh. Raises BadInput."""
    poses, sections = asked.keep_pose or [], asked.mask_edit_section
    if asked.source_motion and asked.motion_length:
        raise BadInput("--motion_length is for motions without --source_motion: leave it out")
    if not asked.source_motion and not (asked.motion_length and poses):
        raise BadInput("pass --source_motion, or --motion_length and --keep_pose where there is no source")
    if not (sections or poses):
        raise BadInput("pass -msec (what to draw anew), --keep_pose, or both")
    source = read_source(asked.source_motion, spec, reading) if asked.source_motion else None
    frames = len(source.joints) if source else asked.motion_length // STRIDE * STRIDE
    drawn = parse_sections(sections or ["0.0,1.0"], frames)
    keyframes = read_keyframes(poses, spec, reading, frames, drawn)
    lines = [f"{frames} frames at {spec.fps:g} per second, to which a .bvh is resampled"]
    for section in sections or ():
        first, last = (bound / spec.fps for bound in parse_section(section, frames))
        unit = "fractions" if "." in section else "frames"
        lines.append(f"-msec {section}, read as {unit}: {first:.2f} to {last:.2f} s")
    spans = [(STRIDE * a, min(STRIDE * b, frames)) for a, b in stretches(drawn)]
    anew = ", ".join(f"frames {a} to {b} ({a / spec.fps:.2f} to {b / spec.fps:.2f} s)" for a, b in spans)
    lines.append(f"regenerated, in whole tokens of {STRIDE} frames: {anew}")
    plan = Plan(source or still(keyframes[0], spec), drawn, keyframes, asked.bones)
    return plan, [*lines, *hurried(keyframes, plan.kept, spec.fps)]


@torch.no_grad()
def draw_edits(pipeline, text, plan, sampling, repeats):
    """`repeats` edits of a plan from a text [1,E], each -> (rows [T,D], joints [T,J,3], lines)."""
    spec, source = pipeline.spec, plan.source
    by_body = bodies(source, spec, plan.bones)
    body = best_reproduced(pipeline.autoencoder, by_body)
    _, tokens = pipeline.autoencoder.ae.tokenize(model_rows(pipeline.autoencoder, by_body[body]))
    hidden = plan.drawn.clone()
    for keyframe in plan.keyframes:
        rows = bodies(keyframe.source, spec, body)[body]
        _, theirs = pipeline.autoencoder.ae.tokenize(model_rows(pipeline.autoencoder, rows))
        around = plan.drawn & held(keyframe.frame, len(hidden))
        tokens[:, around], hidden[around] = theirs[:, around], False
    said = (
        [f"--bones auto: the model sees the motion on the bones {BODIES[body]}"] if len(by_body) > 1 else []
    )
    own_bones = bone_lengths(source.joints, spec.skeleton)
    lengths = torch.tensor([tokens.shape[1] * STRIDE], device=tokens.device)
    for first in range(0, repeats, BATCH):
        some = range(first, min(first + BATCH, repeats))
        for one in draw_hidden(pipeline, text, tokens, hidden, sampling, some):
            (rows,), _ = pipeline.decode(one[None], lengths, sampling.snap != "off")
            if spec.skeleton is SMPL22:  # always, since generated bones vary in length
                rows = on_bones(rows.astype(np.float64), own_bones)
            rows, joints, lines = _place(rows, plan, spec)
            yield rows, joints, [*said, *lines]
            said = []


def _place(rows, plan, spec):
    """Decoded rows [T',D] on the source's body -> (rows [T,D], joints [T,J,3] in its world, lines)."""
    source, kept = plan.source, plan.kept
    own = source.rows[: len(source.joints)]
    rows, bends = anchor(rows[: len(own)], own, kept, spec.skeleton)
    lines = []
    if plan.keyframes:
        rows, lines = meet(rows, source, plan.keyframes, kept, spec)
    joints = joints_of(rows, spec)
    lines += _sunk(joints, kept, spec)
    heights = joints[..., 1] + source.joints[0, 0, 1] - own[0, 3]
    joints = align(joints, source.joints, kept if kept.any() else np.arange(len(own)) == 0)
    if not kept.any():
        joints[..., 1] = heights  # from the source's floor, not its first pose
    if plan.keyframes:
        pinned = kept.copy()
        pinned[[keyframe.frame for keyframe in plan.keyframes]] = True
        joints = fix_feet(joints, spec.fps, spec.skeleton, pinned)
    return rows, joints, [*_describe(joints, rows, source, kept, bends, spec), *lines]


def _sunk(joints, kept, spec):
    """A line if a drawn frame lies more than SUNK_M below the floor and all kept ones. joints [T,J,3]."""
    lowest = spec.skeleton.unit_m * joints[..., 1].min(axis=1)
    frame = np.where(kept, np.inf, lowest).argmin()
    depth = min(0.0, lowest[kept].min(initial=0.0)) - lowest[frame]
    if not kept.all() and depth > SUNK_M:
        when, deep = frame / spec.fps, 100 * depth
        yield f"warning: at {when:.2f} s the body is {deep:.0f} cm below the floor: try another --seed"


def _describe(joints, rows, source, kept, bends, spec):
    """Lines that say how much an edit changed."""
    unit, frames = spec.skeleton.unit_m, len(joints)
    if kept.any():
        apart = 1000 * unit * np.linalg.norm(joints - source.joints, axis=-1)[kept]
        yield f"kept frames: {apart.mean():.1f} mm from the source in its world, at most {apart.max():.1f}"
    if kept.any() and not kept.all():
        local = (rows - source.rows[:frames])[~kept, 4:].reshape(-1, 3)
        by = 1000 * unit * np.linalg.norm(local, axis=-1).mean()
        yield f"drawn frames: {by:.0f} mm per joint from the source, seen from the root"
    for bend in bends:
        yield (
            f"frames {bend.first} to {bend.last}: turned by {bend.degrees:.0f} degrees and moved by "
            f"{bend.metres:.2f} m to meet the kept frames"
        )
