"""Feet that slide while they stand: found, and held to the floor by bending the leg."""

# T frames; a leg is hip, knee, ankle, toe

import numpy as np

from motion.rotations import unit

LOW = 0.05  # metres above the lowest foot of the clip: a joint below may stand
SLOW = 0.9  # metres a second: a joint above swings, it does not slide
SHORTEST = 0.1  # seconds of standing that count
BLEND = 0.25  # seconds over which a held foot is let go


def fix_feet(joints, fps, skeleton):
    """joints [T,J,3] -> the same motion with standing feet held in place, [T,J,3].

    While a toe stands, it stays where it stood on average; hips, heights and the lengths of bones stay as
    they are, the knee bends as it did. A foot that is beyond the leg's reach is held as far as it goes.
    """
    joints = np.array(joints, dtype=np.float64)
    unit_m = skeleton.unit_m
    for ankle, toe in (skeleton.feet[:2], skeleton.feet[2:]):
        knee = skeleton.parents[ankle]
        hip = skeleton.parents[knee]
        moved = _corrections(joints[:, toe], joints[:, list(skeleton.feet), 1].min(), fps, unit_m)
        _bend(joints, (hip, knee, ankle, toe), joints[:, ankle] + moved)
    return joints


def standing(toe, floor, fps, unit_m=1.0):
    """Stretches [start, end) in which a toe [T,3] is low and slow, as pairs."""
    step = np.linalg.norm(np.diff(toe[:, [0, 2]], axis=0), axis=-1)
    speed = np.concatenate([step, step[-1:]]) * fps * unit_m if len(step) else np.zeros(len(toe))
    stands = ((toe[:, 1] - floor) * unit_m < LOW) & (speed < SLOW)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], stands.astype(int), [0]])))
    return [(a, b) for a, b in zip(edges[::2], edges[1::2]) if b - a >= SHORTEST * fps]


def _corrections(toe, floor, fps, unit_m):
    """How far to move the foot at each frame [T,3], horizontally: all the way while it stands, less and less
    around.
    """
    count, blend = len(toe), max(1, round(BLEND * fps))
    known_at, known = [-blend], [np.zeros(3)]
    for start, end in standing(toe, floor, fps, unit_m):
        if start - known_at[-1] > 2 * blend:
            known_at += [known_at[-1] + blend, start - blend]
            known += [np.zeros(3)] * 2
        frames = np.arange(start, end)
        known_at += list(frames)
        known += list((toe[start:end].mean(axis=0) - toe[start:end]) * [1, 0, 1])
    known_at.append(known_at[-1] + blend)
    known.append(np.zeros(3))
    known = np.array(known)
    return np.stack([np.interp(np.arange(count), known_at, known[:, axis]) for axis in range(3)], axis=1)


def _bend(joints, leg, target):
    """Two-bone inverse kinematics, in place: the ankle to target [T,3], the knee on the side where it was."""
    hip, knee, ankle, toe = (joints[:, joint].copy() for joint in leg)
    thigh, shin = np.linalg.norm(knee - hip, axis=-1), np.linalg.norm(ankle - knee, axis=-1)
    way = target - hip
    reach = np.clip(np.linalg.norm(way, axis=-1), np.abs(thigh - shin) + 1e-9, thigh + shin)
    way = unit(way)
    along = (thigh**2 - shin**2 + reach**2) / (2 * np.maximum(reach, 1e-9))
    aside = np.sqrt(np.maximum(thigh**2 - along**2, 0))
    bulge = knee - hip
    bulge = unit(bulge - (bulge * way).sum(axis=-1, keepdims=True) * way)
    joints[:, leg[1]] = hip + way * along[:, None] + bulge * aside[:, None]
    joints[:, leg[2]] = hip + way * reach[:, None]
    joints[:, leg[3]] = joints[:, leg[2]] + toe - ankle
