"""Poses of other files as keyframes of an edit: held as tokens while the rest is drawn, then met exactly.

A keyframe fixes the pose and its height; position on the ground and heading are left to the motion.
"""

# T frames, J joints, D essential columns

from dataclasses import dataclass

import numpy as np
import scipy  # submodules are imported at their first use: it takes a second
import torch

from models.AE import STRIDE
from motion.bvh.rigs import bone_lengths
from motion.skeletons import SMPL22
from utils.errors import BadInput
from utils.generation.anchoring import on_bones
from utils.generation.edit_source import Source, joints_of, read_source
from utils.motion_process import joints_in_root_frame, with_pose

HELD = 4  # frames on either side of a keyframe whose tokens come from its file
CLOSE = 10  # frames on either side over which the motion is blended into the exact pose


@dataclass(frozen=True)
class Keyframe:
    frame: int  # of the result
    source: Source  # the file, shifted so that the pose is in that frame, and as long as the result
    name: str  # as the user wrote it


def read_keyframe(word, spec, reading, frames):
    """ "sit.npy@1.5" or "sit.npy@1.5:2" -> Keyframe of a result of `frames` frames.

    The pose in the file's first frame, or 2 seconds into it, at 1.5 seconds. Raises BadInput.
    """
    where = f"--keep_pose {word}"
    path, _, times = word.rpartition("@")
    at, _, into = times.partition(":")
    try:
        at, into = (round(float(seconds) * spec.fps) for seconds in (at, into or 0))
    except (ValueError, OverflowError):
        path = ""
    if not path:
        raise BadInput(f"{where}: write FILE@SECONDS or FILE@SECONDS:SECONDS_OF_THE_FILE")
    if not 0 <= at < frames:
        raise BadInput(f"{where}: its time must lie from 0 to {(frames - 1) / spec.fps:g} s")
    source = read_source(path, spec, reading, "--keep_pose", shortest=1)
    if not 0 <= into < len(source.joints):
        raise BadInput(f"{where}: {path} lasts {len(source.joints) / spec.fps:g} s")
    shown = np.clip(np.arange(-(-frames // STRIDE) * STRIDE) - at + into, 0, len(source.joints) - 1)
    rows = source.rows[shown]
    rows[np.append(shown[1:] == shown[:-1], True), :3] = 0  # still before its first and after its last frame
    return Keyframe(at, Source(source.joints[shown[:frames]], rows), word)


def read_keyframes(words, spec, reading, frames, drawn):
    """Words -> tuple of Keyframe in order of time. drawn: bool [L], tokens. Raises BadInput."""
    keyframes = sorted((read_keyframe(word, spec, reading, frames) for word in words), key=lambda k: k.frame)
    for before, keyframe in zip([None, *keyframes], keyframes):
        if not drawn[keyframe.frame // STRIDE]:
            raise BadInput(f"--keep_pose {keyframe.name}: its time lies in a part that is kept: see -msec")
        if before and before.frame == keyframe.frame:
            raise BadInput(f"--keep_pose {keyframe.name}: the frame of {before.name}")
    return tuple(keyframes)


def hurried(keyframes, kept, fps):
    """Lines about keyframes less than CLOSE frames from a frame in `kept`, bool [T], or the one before."""
    fixed = list(np.flatnonzero(kept))
    for keyframe in keyframes:
        gap = min((abs(keyframe.frame - frame) for frame in fixed), default=CLOSE)
        if gap < CLOSE:
            yield (
                f"--keep_pose {keyframe.name}: {gap / fps:.2f} s from a kept frame or another pose; "
                f"with less than {CLOSE / fps:.2f} s the body jumps where the two differ"
            )
        fixed.append(keyframe.frame)


def still(keyframe, spec):
    """A Source for keyframes without one: the first keyframe's pose, standing still."""
    rows = keyframe.source.rows.copy()
    if spec.skeleton is SMPL22:  # bones in this frame may differ from the file's
        rows = on_bones(rows, bone_lengths(joints_of(rows, spec), SMPL22))
    rows[:] = rows[keyframe.frame]
    rows[:, :3] = 0
    return Source(joints_of(rows, spec)[: len(keyframe.source.joints)], rows)


def held(frame, length):
    """bool [L], True on the tokens within HELD frames of a frame."""
    mask = torch.zeros(length, dtype=torch.bool)
    mask[max(frame - HELD, 0) // STRIDE : (frame + HELD) // STRIDE + 1] = True
    return mask


def meet(rows, source, keyframes, kept, spec):
    """Change rows [T,D] to show every keyframe's pose in its frame -> (rows, lines for the user).

    The change of a bone fades out over CLOSE frames, or up to a frame in `kept`, bool [T], or a keyframe.
    """
    skeleton, frames = spec.skeleton, np.array([keyframe.frame for keyframe in keyframes])
    poses = np.stack([_pose(keyframe, source, spec) for keyframe in keyframes])
    body, goal = (joints_in_root_frame(x, skeleton) for x in (rows, poses))
    t = np.arange(len(rows))
    rest = (np.abs(t[:, None] - frames).min(axis=1) > CLOSE) | kept
    rest[frames] = False
    knots = np.flatnonzero(rest | np.isin(t, frames))
    parents = list(skeleton.parents[1:])

    def faded(missing):
        """The change needed at the keyframes [K,...] -> the faded change of every frame [T,...]."""
        at_knots = np.zeros((len(knots), *missing.shape[1:]))
        at_knots[np.searchsorted(knots, frames)] = missing
        if len(knots) == 1:
            return np.broadcast_to(missing, (len(rows), *missing.shape[1:]))
        return scipy.interpolate.PchipInterpolator(knots, at_knots)(np.clip(t, knots[0], knots[-1]))

    bones, wanted = (x[:, 1:] - x[:, parents] for x in (body, goal))
    sizes, wanted_sizes = (np.linalg.norm(x, axis=-1, keepdims=True) for x in (bones, wanted))
    sizes = sizes + faded(wanted_sizes - sizes[frames])
    bones = bones + faded(wanted - bones[frames])
    bones *= sizes / np.maximum(np.linalg.norm(bones, axis=-1, keepdims=True), 1e-9)
    closed = body.copy()
    closed[:, 0] += faded(goal[:, 0] - body[frames, 0])
    for joint, parent in enumerate(parents, start=1):
        closed[:, joint] = closed[:, parent] + bones[:, joint - 1]
    result = with_pose(rows, closed)
    shown = joints_in_root_frame(result, skeleton)
    off = [100 * skeleton.unit_m * np.linalg.norm(x[frames] - goal, axis=-1) for x in (body, shown)]
    return result, [
        f"--keep_pose {keyframe.name}: joints {before.mean():.1f} cm off as drawn (at most "
        f"{before.max():.1f}), {after.mean():.1f} cm in the end (at most {after.max():.1f})"
        for keyframe, before, after in zip(keyframes, *off)
    ]


def _pose(keyframe, source, spec):
    """The keyframe's row [D] on the source's bones."""
    rows = keyframe.source.rows
    if spec.skeleton is SMPL22:
        rows = on_bones(rows, bone_lengths(source.joints, SMPL22))
    return rows[keyframe.frame]
