"""The stick figure that pictures and viewer draw: bones, sides, thickness, facing. Metres."""

import numpy as np

TRUNK_SIZE, LIMB_SIZE, HEAD_SIZE, NOSE_SIZE = 0.11, 0.065, 0.19, 0.05
MIDDLE, LEFT, RIGHT = range(3)


def in_metres(motions, skeleton):
    """One motion or several, in the skeleton's unit -> list of float64 [T,J,3] in metres, all drawable."""
    motions = [motions] if getattr(motions, "ndim", 0) == 3 else list(motions)
    if not motions:
        raise ValueError("nothing to draw: no motion was given")
    for i, motion in enumerate(motions):
        skeleton.check(motion, f"motion {i}")
    return [np.asarray(motion, dtype=np.float64) * skeleton.unit_m for motion in motions]


def bones(skeleton):
    """-> joint pairs (inner, outer) [P,2], side of each [P] (that of its outer joint), thickness [P]."""
    left, right = (set(side) for side in zip(*skeleton.mirror))
    pairs = [(parent, child) for child, parent in enumerate(skeleton.parents) if parent >= 0]
    sides = np.array([LEFT if child in left else RIGHT if child in right else MIDDLE for _, child in pairs])
    return np.array(pairs), sides, np.where(sides == MIDDLE, TRUNK_SIZE, LIMB_SIZE)


def faces(motion, skeleton):
    """Unit vector on the floor that hips and shoulders face: left x up. motion [T,J,3] -> [T,3]."""
    left = sum(motion[:, pair[0]] - motion[:, pair[1]] for pair in (skeleton.hips, skeleton.shoulders))
    face = np.cross(left, (0.0, 1.0, 0.0))
    return face / np.maximum(np.linalg.norm(face, axis=-1, keepdims=True), 1e-6)
