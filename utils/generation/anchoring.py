"""Put an edited motion back where its source was: kept frames exactly, drawn sections fitted in between.

This works on feature rows (utils/motion_process.py), which hold steps and turns instead of positions. The
ground plane is complex here, p = z + ix, so that a turn by theta about +Y is a product with exp(i theta).
"""

# T frames, J joints, D essential columns

from dataclasses import dataclass

import numpy as np

from motion.bvh.rigs import with_bone_lengths
from motion.feet import stretches
from motion.rotations import unit
from motion.skeletons import SMPL22
from utils.motion_process import joints_in_root_frame, with_pose

BLEND = 12  # frames at either end of a section over which its pose blends with that of the kept frames
CREEP = 0.005  # metres a frame, added to the speed: a standing body takes a small part of a correction


@dataclass(frozen=True)
class Bend:
    """How far a drawn section was moved and turned to end at the next kept frame."""

    first: int  # its frames, `last` exclusive
    last: int
    metres: float
    degrees: float


def anchor(drawn, source, kept, skeleton):
    """Join a drawn motion with the kept frames of its source -> (rows [T,D], list of Bend)

    drawn, source [T,D], kept bool [T]. A section between kept frames begins and ends at the source's
    positions and headings: the difference is spread over it, most where the body moves and nothing at either
    end. Over BLEND frames its pose blends from the kept frame before and into the one after. Bone lengths are
    blended separately: interpolated joint positions alone would change a forearm by up to its length.
    """
    drawn, source, kept = np.asarray(drawn, np.float64), np.asarray(source, np.float64), np.asarray(kept)
    rows, bends = np.where(kept[:, None], source, drawn), []
    lengths, source_lengths = (_bones(x, skeleton)[1] for x in (drawn, source))
    both = (rows, source - drawn, 2), (lengths, source_lengths - lengths, 1)
    for first, last in stretches(~kept):
        for values, apart, known in both:
            if first > 0:
                values[first:last] += _faded(apart[max(first - known, 0) : first], last - first)
            if last < len(rows):
                values[first:last] += _faded(apart[last : last + known][::-1], last - first)[::-1]
        if first > 0 and last < len(rows):
            metres, degrees = _bend(rows[first:last], source[first:last], skeleton.unit_m)
            bends.append(Bend(first, last, metres, degrees))
    rows[~kept] = _with_lengths(rows[~kept], lengths[~kept], skeleton)
    return rows, bends


def _bones(rows, skeleton):
    """Rows [T,D] -> the bones that end at joints 1..J-1 [T,J-1,3], their lengths [T,J-1]."""
    joints = joints_in_root_frame(rows, skeleton)
    bones = joints[:, 1:] - joints[:, list(skeleton.parents[1:])]
    return bones, np.linalg.norm(bones, axis=-1)


def _with_lengths(rows, lengths, skeleton):
    """Rows [T,D] with bones of these lengths [T,J-1]; the lowest foot keeps its height."""
    joints, bones = joints_in_root_frame(rows, skeleton), unit(_bones(rows, skeleton)[0])
    moved, feet = joints.copy(), list(skeleton.feet)
    for joint, parent in enumerate(skeleton.parents[1:], start=1):
        moved[:, joint] = moved[:, parent] + bones[:, joint - 1] * lengths[:, joint - 1, None]
    moved[..., 1] += (joints[:, feet, 1].min(axis=1) - moved[:, feet, 1].min(axis=1))[:, None]
    return with_pose(rows, moved)


def _faded(apart, frames):
    """Fade a difference out -> [frames,D]: a cubic Hermite curve from the value and speed of `apart`
    [1 or 2,D], its last known frames, to 0 at rest.
    """
    n = min(BLEND, frames + 1)
    s = np.minimum(np.arange(1, frames + 1) / n, 1)[:, None]
    speed = apart[-1] - apart[0]
    return (2 * s**3 - 3 * s**2 + 1) * apart[-1] + (s**3 - 2 * s**2 + s) * n * speed


def _bend(rows, source, unit_m):
    """Change the turns and steps of rows [n,D], in place, to end where the source ends. unit_m: metres in the
    unit of the rows. -> metres, degrees
    """
    n = len(rows)
    weight = np.hypot(rows[:, 1], rows[:, 2]) + CREEP / unit_m
    weight *= np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2
    weight /= weight.sum()
    turn = -2 * (source[:, 0].sum() - rows[:, 0].sum())
    turn = (turn + np.pi) % (2 * np.pi) - np.pi
    rows[:, 0] -= weight * turn / 2
    steps, facing = _steps(rows)
    lack = _steps(source)[0].sum() - steps.sum()
    own = (steps + weight * lack) / facing
    rows[:, 1], rows[:, 2] = own.imag, own.real
    return float(abs(lack) * unit_m), float(np.degrees(abs(turn)))


def _steps(rows):
    """Complex steps [n] on the ground, relative to the first frame's heading, and exp(i turn) [n] so far."""
    facing = np.exp(-2j * np.cumsum(rows[:, 0]))
    return (rows[:, 2] + 1j * rows[:, 1]) * facing, facing


def align(joints, target, frames):
    """joints [T,J,3] turned about +Y and shifted as a whole, for the least-squares fit of `frames` to target.

    target [T,J,3]; frames bool [T], at least one True.
    """
    p, q = (x[..., 2] + 1j * x[..., 0] for x in (joints, target))
    (p_mean, q_mean) = (x[frames].mean() for x in (p, q))
    facing = ((q[frames] - q_mean) * (p[frames] - p_mean).conj()).sum()
    moved = (p - p_mean) * np.exp(1j * np.angle(facing)) + q_mean
    height = joints[..., 1] + (target - joints)[frames][..., 1].mean()
    return np.stack([moved.imag, height, moved.real], axis=-1)


def on_bones(rows, lengths):
    """Rows [T,67] on a body with other bone lengths [22]; steps scale with the legs."""
    pelvis = rows[:, None, [1, 3, 2]]  # its step as x, z: so it is scaled too
    body = np.concatenate([pelvis, rows[:, 4:].reshape(len(rows), -1, 3) + pelvis * [1, 0, 1]], axis=1)
    moved = with_bone_lengths(body, np.asarray(lengths), SMPL22)
    others = (moved[:, 1:] - moved[:, :1] * [1, 0, 1]).reshape(len(rows), -1)
    return np.concatenate([rows[:, :1], moved[:, 0, [0, 2, 1]], others], axis=1)
