"""Foot-skate clean-up: find standing feet, hold them in place by bending the leg."""

# T frames

import numpy as np

from motion.rotations import shortest_arc, unit

LOW = 0.05  # metres above the floor, below which a toe may stand
SUNK = 0.1  # metres below the floor, to which a standing toe of a generated motion may sink
FLOOR = 10  # percent of the frames in which a foot may be below the floor
SLOW = 0.9  # metres a second, above which a toe swings rather than slides
# metres within a second: where a low foot goes further, and the hip with it, the whole body glides
GLIDE = 0.4
SHORTEST = 0.1  # seconds that a toe must stand
STRETCH = 0.999  # of a leg's length, to which it may stretch (the knee bent 5 degrees), lest the knee snap
BLEND = 0.25  # seconds over which a held foot is let go


def fix_feet(joints, fps, skeleton, pinned=None):
    """joints [T,J,3] -> the same motion with standing feet held in place, [T,J,3].

    While a toe stands, it stays at its average place, or at its place in the frames that are `pinned`, bool
    [T], which do not change. Hips, all heights and bone lengths stay as they are, and a knee bends to the
    same side as before. Where the place is out of reach, the foot moves towards it as far as the leg goes.
    """
    joints = np.array(joints, dtype=np.float64)
    floor = np.percentile(joints[:, list(skeleton.feet), 1].min(axis=1), FLOOR)
    for toe in skeleton.feet[1::2]:
        leg = [toe]
        while leg[0] not in skeleton.hips:
            leg.insert(0, skeleton.parents[leg[0]])
        stands = standing(joints[:, toe], joints[:, leg[0]], floor, fps, skeleton.unit_m)
        _bend(joints, leg, _corrections(joints[:, toe], stands, fps, pinned))
    return joints


def standing(toe, hip, floor, fps, unit_m=1.0):
    """-> [(start, end)], end exclusive: where a toe [T,3] is low and slow and the body does not glide."""
    height = (toe[:, 1] - floor) * unit_m
    toe, hip, low = toe[:, [0, 2]] * unit_m, hip[:, [0, 2]] * unit_m, (height > -SUNK) & (height < LOW)
    step = np.linalg.norm(np.diff(toe, axis=0), axis=-1)
    slow = low & (np.append(step, step[-1:] if len(step) else 0) * fps < SLOW)
    second = max(1, round(fps))
    for start, end in stretches(slow):
        first = np.clip(np.arange(start, end) - second // 2, start, max(start, end - 1 - second))
        last = np.minimum(first + second, end - 1)
        way = np.linalg.norm(toe[last] - toe[first], axis=-1)
        way_from_hip = np.linalg.norm((toe - hip)[last] - (toe - hip)[first], axis=-1)
        slow[start:end] = (way < GLIDE) | (way_from_hip > way / 2)
    return [(start, end) for start, end in stretches(slow) if end - start >= SHORTEST * fps]


def stretches(mask):
    """bool [N] -> [(start, end)] of the runs of True, end exclusive."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(mask, dtype=np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist()))


def _corrections(toe, stands, fps, pinned=None):
    """Horizontal correction of the foot in each frame [T,3]: full while it stands, fading out before and
    after, none where it is pinned.
    """
    moved, known = np.zeros_like(toe), np.zeros(len(toe), dtype=bool) if pinned is None else pinned.copy()
    for start, end in stands:
        pins, place = start + np.flatnonzero(known[start:end]), toe[start:end].mean(axis=0)
        if len(pins):
            place = np.stack([np.interp(np.arange(start, end), pins, toe[pins, k]) for k in range(3)], axis=1)
        moved[start:end] = (place - toe[start:end]) * [1, 0, 1]
        known[start:end] = True
    from scipy.ndimage import binary_dilation  # not at the top: takes half a second, and few need it

    known |= ~binary_dilation(known, np.ones(2 * max(1, round(BLEND * fps)) - 1))
    frames = np.arange(len(toe))
    return np.stack([np.interp(frames, frames[known], moved[known, axis]) for axis in range(3)], axis=1)


def _bend(joints, leg, moved):
    """Two-bone inverse kinematics, in place: move the ankle by `moved` [T,3] or as much of it as is in reach.

    leg: hip, knee, ankle and what is below. The bending plane follows the shortest arc from the old direction
    hip-ankle to the new one: measured against the new direction, a nearly straight knee could flip.
    """
    hip, knee, ankle, toe = (joints[:, joint].copy() for joint in (*leg[:3], leg[-1]))
    thigh, shin = np.linalg.norm(knee - hip, axis=-1), np.linalg.norm(ankle - knee, axis=-1)
    old = ankle - hip
    new = old + moved * _share_in_reach(old, moved, STRETCH * (thigh + shin))[:, None]
    way, reach = unit(new), np.clip(np.linalg.norm(new, axis=-1), np.abs(thigh - shin) + 1e-9, thigh + shin)
    along = (thigh**2 - shin**2 + reach**2) / (2 * np.maximum(reach, 1e-9))
    aside = np.sqrt(np.maximum(thigh**2 - along**2, 0))
    bulge = shortest_arc(unit(old), way).apply(knee - hip)
    bulge -= (bulge * way).sum(axis=-1, keepdims=True) * way
    straight = np.linalg.norm(bulge, axis=-1, keepdims=True) < 1e-6 * thigh[:, None]
    bulge = np.where(straight, toe - ankle, bulge)  # a knee bends towards the toes
    bulge = unit(bulge - (bulge * way).sum(axis=-1, keepdims=True) * way)
    joints[:, leg[1]] = hip + way * along[:, None] + bulge * aside[:, None]
    joints[:, leg[2:]] += (way * reach[:, None] - old)[:, None]


def _share_in_reach(old, moved, reach):
    """The largest share s <= 1 of a move [T] with |old + s moved| <= the larger of reach and |old|."""
    a, b = (moved**2).sum(axis=-1), (old * moved).sum(axis=-1)
    room = np.maximum(reach**2 - (old**2).sum(axis=-1), 0)
    # s = (-b + sqrt(b^2 + a room)) / a, rationalised where b > 0, against cancellation
    root = np.sqrt(b**2 + a * room)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(b > 0, room / (b + root), (root - b) / a)
    return np.where(a > 0, np.minimum(share, 1), 1.0)
