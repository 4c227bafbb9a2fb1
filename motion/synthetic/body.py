"""Pose the demo set's body: control tracks (root, spine, arms, feet) -> joints [T,22,3] of SMPL22, in metres.

Forward kinematics over constant bones for trunk and arms, two-bone inverse kinematics for the legs, so that a
standing foot stays where it is. Angles are radians, Y is up, the body's left is +X while it faces +Z. Index 0
is left, 1 right; arms are written as if left and mirrored.
"""

from dataclasses import dataclass, fields

import numpy as np
from scipy.ndimage import grey_opening, minimum_filter1d, uniform_filter1d

FPS = 20
THIGH, SHIN, UPPER_ARM, FOREARM = 0.392, 0.428, 0.260, 0.268
HIP = np.array([0.060, -0.085, 0.0])  # the left one, from the pelvis
TOE = np.array([0.0, -0.045, 0.138])  # from the ankle, foot flat
ANKLE_HEIGHT = 0.060
REACH = 0.995 * (THIGH + SHIN)  # a leg never locks straight
STAND_HEIGHT = 0.956  # of the pelvis
STANCE = 0.095  # half the distance between standing ankles
TOES_OUT = np.radians(6)
HANG = np.radians([4, 9, 0, 14])  # arms at rest: flexion, abduction, outward rotation, elbow
SPINE = np.array([[0, 0.130, -0.020], [0, 0.143, 0], [0, 0.057, 0.005]])
NECK, HEAD = np.array([0, 0.215, -0.030]), np.array([0, 0.085, 0.055])
COLLAR, SHOULDER = np.array([0.075, 0.120, -0.020]), np.array([0.115, 0.040, -0.010])
SIDES = (1, -1)
X, Y, Z = range(3)


@dataclass
class Tracks:
    """Control tracks of one clip; the first axis of every array is T."""

    root: np.ndarray  # [T,2] x, z of the pelvis
    yaw: np.ndarray  # [T] facing
    height: np.ndarray  # [T] desired height of the pelvis, lowered where the legs do not reach
    pelvis: np.ndarray  # [T,3] pitch forward, roll, twist
    spine: np.ndarray  # [T,3] the same, spread over three joints
    head: np.ndarray  # [T] pitch forward
    arms: np.ndarray  # [T,2,4] flexion, abduction, outward rotation, elbow
    foot: np.ndarray  # [T,2,2] x, z of the ankle while its foot is flat
    foot_yaw: np.ndarray  # [T,2]
    lift: np.ndarray  # [T,2] height of the sole above the floor
    heel: np.ndarray  # [T,2] heel raised about the standing toe
    toe: np.ndarray  # [T,2] toe raised about the standing ankle

    def __len__(self):
        return len(self.yaw)


def smooth(u):
    """Minimum-jerk step: 0 below 0, 1 above 1, no speed and no acceleration at either end."""
    u = np.clip(u, 0.0, 1.0)
    return u**3 * (10 - 15 * u + 6 * u * u)


def keyed(t, keys):
    """Interpolate keys (time, value) at times t [T] by minimum-jerk steps; values may be vectors."""
    times = np.array([time for time, _ in keys])
    values = np.array([value for _, value in keys], dtype=float)
    track = np.broadcast_to(values[0], (len(t), *values.shape[1:])).copy()
    for start, end, step in zip(times, times[1:], np.diff(values, axis=0)):
        track += np.multiply.outer(smooth((t - start) / max(end - start, 1e-6)), step)
    return track


def standing(n):
    """Tracks of n frames at rest, facing +Z at the origin."""
    feet = np.array([[STANCE, 0.0], [-STANCE, 0.0]])
    return Tracks(
        root=np.zeros((n, 2)),
        yaw=np.zeros(n),
        height=np.full(n, STAND_HEIGHT),
        pelvis=np.zeros((n, 3)),
        spine=np.zeros((n, 3)),
        head=np.zeros(n),
        arms=np.tile(HANG, (n, 2, 1)),
        foot=np.tile(feet, (n, 1, 1)),
        foot_yaw=np.tile([TOES_OUT, -TOES_OUT], (n, 1)),
        lift=np.zeros((n, 2)),
        heel=np.zeros((n, 2)),
        toe=np.zeros((n, 2)),
    )


def forward_of(yaw):
    """Yaw [...] -> x, z [...,2] of the facing direction; its left is (z, -x)."""
    return np.stack([np.sin(yaw), np.cos(yaw)], axis=-1)


def turned(points, yaw):
    """Points x, z [...,2] turned about the vertical by one angle."""
    x, z = points[..., 0], points[..., 1]
    return np.stack([np.cos(yaw) * x + np.sin(yaw) * z, np.cos(yaw) * z - np.sin(yaw) * x], axis=-1)


def concatenate(first, second):
    """Join two Tracks: the second starts at the place and heading where the first ended, both at rest."""
    yaw, origin = first.yaw[-1], first.root[-1]
    moved = {
        "root": turned(second.root, yaw) + origin,
        "foot": turned(second.foot, yaw) + origin,
        "yaw": second.yaw + yaw,
        "foot_yaw": second.foot_yaw + yaw,
    }
    parts = {}
    for field in fields(Tracks):
        tail = moved.get(field.name, getattr(second, field.name))
        parts[field.name] = np.concatenate([getattr(first, field.name), tail[1:]])
    return Tracks(**parts)


def mirrored(tracks):
    """Tracks with left and right exchanged: x, yaw, roll and twist change their sign."""
    across, turn = np.array([-1, 1]), np.array([1, -1, -1])
    return Tracks(
        root=tracks.root * across,
        yaw=-tracks.yaw,
        height=tracks.height,
        pelvis=tracks.pelvis * turn,
        spine=tracks.spine * turn,
        head=tracks.head,
        arms=tracks.arms[:, ::-1],
        foot=tracks.foot[:, ::-1] * across,
        foot_yaw=-tracks.foot_yaw[:, ::-1],
        lift=tracks.lift[:, ::-1],
        heel=tracks.heel[:, ::-1],
        toe=tracks.toe[:, ::-1],
    )


def about(axis, angle):
    """Rotations [T,3,3] by `angle` [T] about an axis X, Y or Z."""
    # not SciPy's: they differ in the last bit, and the demo set of a seed must not change
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.zeros((len(angle), 3, 3))
    matrix[:, axis, axis] = 1
    matrix[:, i, i] = matrix[:, j, j] = np.cos(angle)
    matrix[:, j, i] = np.sin(angle)
    matrix[:, i, j] = -matrix[:, j, i]
    return matrix


def _bend(angles):
    """Pitch, roll, twist [T,3] -> rotations [T,3,3]."""
    return about(Y, angles[:, 2]) @ about(X, angles[:, 0]) @ about(Z, angles[:, 1])


def _ankles(tracks, side):
    """Desired ankle [T,3] and toe offset [T,3] of one foot, which rolls over its toe while the heel is up."""
    yaw = about(Y, tracks.foot_yaw[:, side])
    heel, toe = tracks.heel[:, side], tracks.toe[:, side]
    ankle = np.insert(tracks.foot[:, side], 1, ANKLE_HEIGHT + tracks.lift[:, side], axis=1)
    ankle += yaw @ TOE - yaw @ about(X, heel) @ TOE
    return ankle, yaw @ about(X, heel - toe) @ TOE


def _reachable_height(tracks, hips, ankles):
    """Pelvis height [T]: the desired one, softly limited so that both legs reach; hips [T,2,3] from it."""
    gap = ankles - hips
    gap[..., [0, 2]] -= tracks.root[:, None]
    flat = np.sum(gap[..., [0, 2]] ** 2, axis=-1)
    limit = gap[..., 1] + np.sqrt(np.maximum(REACH**2 - flat, 0.04))
    # the mean of minima over a window never exceeds the value in its middle: smooth, and still in reach
    flight = grey_opening(tracks.lift.min(axis=1), 5)[:, None]  # of both feet: a jump, not a running step
    limit = flight + uniform_filter1d(minimum_filter1d(limit - flight, 5, axis=0), 5, axis=0, mode="nearest")
    every = np.column_stack([tracks.height, limit])
    lowest = every.min(axis=1)
    return lowest - np.log(np.exp(-90 * (every - lowest[:, None])).sum(axis=1)) / 90


def _knee(hip, ankle, lateral):
    """Knee [T,3] that bends forward, and the ankle [T,3] drawn in where it is out of reach."""
    leg = ankle - hip
    length = np.clip(np.linalg.norm(leg, axis=1, keepdims=True), 0.20, REACH)
    axis = leg / np.linalg.norm(leg, axis=1, keepdims=True)
    forward = np.cross(axis, lateral)
    forward /= np.linalg.norm(forward, axis=1, keepdims=True)
    along = (THIGH**2 - SHIN**2 + length**2) / (2 * length)
    return hip + along * axis + np.sqrt(THIGH**2 - along**2) * forward, hip + length * axis


def pose(tracks):
    """Tracks -> joints [T,22,3] float64."""
    n = len(tracks)
    joints = np.zeros((n, 22, 3))
    tilt = tracks.pelvis + np.column_stack([np.zeros((n, 2)), tracks.yaw])
    pelvis = _bend(tilt)
    hips = np.stack([pelvis @ (HIP * [side, 1, 1]) for side in SIDES], axis=1)
    feet = [_ankles(tracks, side) for side in (0, 1)]
    height = _reachable_height(tracks, hips, np.stack([ankle for ankle, _ in feet], axis=1))
    joints[:, 0] = np.insert(tracks.root, 1, height, axis=1)
    for side, (ankle, toe) in enumerate(feet):
        yaw = (tilt[:, 2] + tracks.foot_yaw[:, side]) / 2
        lateral = np.stack([np.cos(yaw), np.zeros(n), -np.sin(yaw)], axis=1)
        joints[:, 1 + side] = joints[:, 0] + hips[:, side]
        joints[:, 4 + side], joints[:, 7 + side] = _knee(joints[:, 1 + side], ankle, lateral)
        joints[:, 10 + side] = joints[:, 7 + side] + toe
    chest, joint = pelvis, 0
    for offset, child in zip(SPINE, (3, 6, 9)):
        joints[:, child] = joints[:, joint] + chest @ offset
        chest, joint = chest @ _bend(tracks.spine / 3), child
    joints[:, 12] = joints[:, 9] + chest @ NECK
    joints[:, 15] = joints[:, 12] + chest @ about(X, tracks.head) @ HEAD
    for side, sign in enumerate(SIDES):
        _arm(joints, chest, tracks.arms[:, side], side, np.array([sign, 1, 1]))
    return joints


def _arm(joints, chest, angles, side, mirror):
    """Fill collar, shoulder, elbow and wrist of one side; the shoulder rides up with a raised arm."""
    flexion, abduction, rotation, elbow = angles.T
    upper = about(Z, abduction) @ about(X, -flexion) @ about(Y, rotation)
    down = np.array([0, -1.0, 0])
    raised = (upper @ down)[:, 1]
    shrug = about(Z, 0.35 * smooth((raised + 0.2) / 1.2))
    offsets = (
        (13, np.broadcast_to(COLLAR, (len(elbow), 3)), 9),
        (16, shrug @ SHOULDER, 13),
        (18, upper @ (UPPER_ARM * down), 16),
        (20, upper @ about(X, -elbow) @ (FOREARM * down), 18),
    )
    for joint, offset, parent in offsets:
        parent = parent if parent == 9 else parent + side
        joints[:, joint + side] = joints[:, parent] + np.einsum("tij,tj->ti", chest, offset * mirror)
