"""Recognise the demo set's actions from joints alone: `describe` measures a clip, `shows` compares it with a
label.

Measures: displacement, turn, heights, which wrist is above its shoulder, which foot is high. The thresholds
leave room for generated motion: it should read as the action, not equal the demo set's.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks

PELVIS, NECK, FPS = 0, 12, 20
HIPS, SHOULDERS, ELBOWS, WRISTS, ANKLES = (1, 2), (16, 17), (18, 19), (20, 21), (7, 8)
FEET = (7, 10, 8, 11)
MIRROR = {"left": "right", "right": "left"}


@dataclass(frozen=True)
class Moves:
    """Measures of one clip; pairs are (left, right); metres, degrees, seconds."""

    ahead: float  # way along the facing direction, backwards negative
    leftward: float  # way to the body's left
    away: float  # distance from the first to the last place
    speed: float  # 90th percentile of the pelvis' horizontal speed, m/s
    turn: float  # facing, last minus first, left positive
    rise: float  # of the pelvis at its highest over its start
    drop: float  # of the pelvis at its lowest under the higher of its start and end
    first_height: float  # pelvis over the floor
    last_height: float
    airborne: float  # largest height over the clip of the lowest foot joint
    bend: float  # of the trunk from the vertical, at its largest
    last_bend: float
    hand_up: tuple[float, float]  # seconds that each wrist is above its shoulder
    hand_height: tuple[float, float]  # of each wrist over its shoulder, at its highest
    swings: tuple[int, int]  # of each raised forearm from side to side
    punch: tuple[float, float]  # of each wrist in front of its shoulder, at shoulder height
    claps: int  # times that the hands come together before the body
    foot_up: tuple[float, float]  # of each ankle over the other, at its highest
    foot_front: tuple[float, float]  # of that ankle in front of the pelvis at that moment
    foot_held: tuple[float, float]  # seconds that each ankle is 0.12 m over the other
    when: dict[str, float]  # shares of the clip until: half of way, turn, hand; peak of foot, low, bend, air


def describe(joints) -> Moves:
    """Joints [T,22,3] in metres, 20 fps, Y up -> Moves. At least 8 frames."""
    if joints.ndim != 3 or joints.shape[1:] != (22, 3) or len(joints) < 8 or not np.isfinite(joints).all():
        raise ValueError(f"joints {joints.shape}: need 8 or more finite frames of 22 joints")
    joints = gaussian_filter1d(np.asarray(joints, dtype=np.float64), 1.0, axis=0, mode="nearest")
    across = sum(joints[:, left] - joints[:, right] for left, right in (HIPS, SHOULDERS))
    yaw = gaussian_filter1d(np.unwrap(np.arctan2(-across[:, 2], across[:, 0])), 3.0, mode="nearest")
    facing, left = np.stack([np.sin(yaw), np.cos(yaw)], 1), np.stack([np.cos(yaw), -np.sin(yaw)], 1)
    pelvis = joints[:, PELVIS]
    step = np.diff(pelvis[:, [0, 2]], axis=0)
    steady = gaussian_filter1d(step, 4.0, axis=0, mode="nearest") * FPS
    floor = np.percentile(joints[:, FEET, 1], 2)
    height = pelvis[:, 1] - floor
    lowest = joints[:, FEET, 1].min(axis=1) - floor
    trunk = joints[:, NECK] - pelvis
    bend = np.degrees(np.arctan2(np.hypot(trunk[:, 0], trunk[:, 2]), trunk[:, 1]))
    hands, feet = [_hand(joints, facing, left, side) for side in (0, 1)], _feet(joints, facing)
    raised = np.max([hand["over"] for hand in hands], axis=0)
    return Moves(
        ahead=float(np.sum(step * facing[1:])),
        leftward=float(np.sum(step * left[1:])),
        away=float(np.linalg.norm(pelvis[-1, [0, 2]] - pelvis[0, [0, 2]])),
        speed=float(np.percentile(np.linalg.norm(steady, axis=1), 90)),
        turn=float(np.degrees(yaw[-1] - yaw[0])),
        rise=float(height.max() - np.median(height[:4])),
        drop=float(max(np.median(height[:4]), np.median(height[-4:])) - height.min()),
        first_height=float(np.median(height[:4])),
        last_height=float(np.median(height[-4:])),
        airborne=float(lowest.max()),
        bend=float(bend.max()),
        last_bend=float(np.median(bend[-4:])),
        hand_up=tuple(float(np.sum(hand["over"] > 0.05)) / FPS for hand in hands),
        hand_height=tuple(float(hand["over"].max()) for hand in hands),
        swings=tuple(hand["swings"] for hand in hands),
        punch=tuple(hand["punch"] for hand in hands),
        claps=_claps(joints, facing),
        when={
            "way": _half(np.linalg.norm(steady, axis=1)),
            "turn": _half(np.abs(np.diff(yaw))),
            "hand": _half(np.maximum(raised, 0)),
            "foot": float(np.argmax(feet.pop("high")) / len(joints)),
            "low": float(np.argmin(height) / len(joints)),
            "bend": float(np.argmax(bend) / len(joints)),
            "air": float(np.argmax(lowest) / len(joints)),
        },
        **feet,
    )


def _half(amount):
    """The time, as a share of the clip, at which half of the sum of `amount` [T] is reached."""
    total = np.cumsum(amount)
    return float(np.searchsorted(total, total[-1] / 2) / len(amount)) if total[-1] > 0 else 0.0


def _hand(joints, facing, left, side):
    """One hand: height over the shoulder [T], reach in a punch, swings of the forearm while it is up."""
    reach = joints[:, WRISTS[side]] - joints[:, SHOULDERS[side]]
    forward = np.sum(reach[:, [0, 2]] * facing, axis=1)
    level = np.abs(reach[:, 1]) < 0.22
    forearm = joints[:, WRISTS[side]] - joints[:, ELBOWS[side]]
    tilt = np.degrees(np.arctan2(np.sum(forearm[:, [0, 2]] * left, axis=1), forearm[:, 1]))
    up = reach[:, 1] > 0.08
    turns = 0
    if up.sum() >= 6:
        path = tilt[up]
        turns = len(find_peaks(path, prominence=10)[0]) + len(find_peaks(-path, prominence=10)[0])
    return {"over": reach[:, 1], "punch": float(forward[level].max(initial=0)), "swings": turns}


def _claps(joints, facing):
    gap = np.linalg.norm(joints[:, WRISTS[0]] - joints[:, WRISTS[1]], axis=1)
    middle = joints[:, WRISTS].mean(axis=1) - joints[:, PELVIS]
    before = (middle[:, 1] > 0.1) & (np.sum(middle[:, [0, 2]] * facing, axis=1) > 0.12)
    close, _ = find_peaks(-gap, prominence=0.07)
    return int(np.sum(before[close] & (gap[close] < 0.24)))


def _feet(joints, facing):
    """How high, how far in front and how long each ankle is over the other one."""
    over = joints[:, ANKLES[0], 1] - joints[:, ANKLES[1], 1]
    front = [np.sum((joints[:, ankle] - joints[:, PELVIS])[:, [0, 2]] * facing, axis=1) for ankle in ANKLES]
    highest = [int(np.argmax(sign * over)) for sign in (1, -1)]
    return {
        "foot_up": (float(over.max()), float(-over.min())),
        "foot_front": tuple(float(front[side][highest[side]]) for side in (0, 1)),
        "foot_held": (float(np.sum(over > 0.12)) / FPS, float(np.sum(over < -0.12)) / FPS),
        "high": np.abs(over),
    }


def _sides(side):
    """Index of the named side and of the other one."""
    return (0, 1) if side == "left" else (1, 0)


def _sign(side):
    return 1 if side == "left" else -1


def _goes(m, least=1.0):
    return m.ahead > least and abs(m.leftward) < 0.4 * m.ahead


def _straight(m):
    return abs(m.turn) < 40


def _stays(m, within=0.5):
    return m.away < within and abs(m.ahead) < within + 0.2


def _hands_down(m):
    return max(m.hand_up) < 0.3


def _waves(m, side):
    own, other = _sides(side)
    return (
        m.hand_up[own] > 0.6 and m.hand_up[other] < 0.3 and m.swings[own] >= 2 and m.hand_height[own] < 0.42
    )


def _kicks(m, side):
    own, other = _sides(side)
    return m.foot_up[own] > 0.35 and m.foot_front[own] > 0.25 and m.foot_up[other] < 0.7 * m.foot_up[own]


def _raises(m, side):
    own, other = _sides(side)
    return m.hand_height[own] > 0.38 and m.hand_up[own] > 0.4 and m.hand_up[other] < 0.3


def _punches(m, side):
    own, other = _sides(side)
    return m.punch[own] > 0.42 and m.punch[own] > m.punch[other] + 0.08


def _hops(m, side):
    own, other = _sides(side)
    return (
        m.foot_held[other] > 0.7
        and m.foot_held[own] < 0.3
        and m.airborne > 0.03
        and m.foot_front[other] < 0.2
    )


def _sits(m):
    return m.first_height - m.last_height > 0.2 and m.last_height < 0.8


def _walks(m):
    """Forward on two feet, upright, with nothing else going on."""
    return (
        _goes(m) and _straight(m) and _hands_down(m) and m.drop < 0.2 and m.bend < 35 and max(m.foot_up) < 0.4
    )


def _leaps(m):
    return m.airborne > 0.12 and max(m.foot_held) < 0.3


def _bows(m):
    return m.bend > 42 and m.last_bend < 25 and m.drop < 0.25


def _returns(m):
    return min(m.first_height, m.last_height) > 0.75


def _turned(m, side):
    return 45 < _sign(side) * m.turn < 140


def _turn_first(m):
    return m.when["turn"] < m.when["way"] - 0.2


# name -> does the motion show it? The side is left or right for actions that have one, else None.
CHECKS = {
    "walk": lambda m, _: _walks(m) and 0.75 < m.speed < 2.1,
    "walk_slow": lambda m, _: _walks(m) and m.speed < 0.9,
    "walk_fast": lambda m, _: _walks(m) and 1.25 < m.speed < 2.1,
    "walk_curve": lambda m, side: _goes(m) and _turned(m, side) and not _turn_first(m),
    "walk_around": lambda m, _: _goes(m) and abs(m.turn) > 120 and m.away < 0.6 * m.ahead,
    "backward": lambda m, _: m.ahead < -0.8 and _straight(m) and abs(m.leftward) < 0.4 * -m.ahead,
    "side": lambda m, side: _sign(side) * m.leftward > max(0.6, 2 * abs(m.ahead)) and _straight(m),
    "run": lambda m, _: _goes(m, 2.0) and _straight(m) and m.speed > 1.9,
    "crouch": lambda m, _: _goes(m) and _straight(m) and _returns(m) and m.drop > 0.16 and m.airborne < 0.12,
    "jump": lambda m, _: _leaps(m) and m.rise > 0.12 and m.away < 0.35,
    "jump_forward": lambda m, _: _leaps(m) and m.rise > 0.10 and 0.35 < m.ahead < 2.0 and _straight(m),
    "hop": _hops,
    "squat": lambda m, _: m.drop > 0.25 and _returns(m) and _stays(m) and m.airborne < 0.1,
    "sit": lambda m, _: _sits(m) and m.away < 0.7,
    "stand_up": lambda m, _: m.last_height - m.first_height > 0.2 and m.first_height < 0.8 and m.away < 0.7,
    "bow": lambda m, _: _bows(m) and _stays(m),
    "wave": lambda m, side: _waves(m, side) and _stays(m),
    "clap": lambda m, _: m.claps >= 2 and abs(m.punch[0] - m.punch[1]) < 0.15 and _stays(m),
    "kick": lambda m, side: _kicks(m, side) and _stays(m),
    "punch": lambda m, side: _punches(m, side) and _hands_down(m) and max(m.foot_up) < 0.3 and _stays(m),
    "raise": lambda m, side: _raises(m, side) and _stays(m),
    "raise_both": lambda m, _: min(m.hand_height) > 0.38 and min(m.hand_up) > 0.4 and _stays(m),
    "turn": lambda m, side: _turned(m, side) and _stays(m),
    "turn_around": lambda m, _: abs(m.turn) > 130 and _stays(m),
    "walk_wave": lambda m, side: _goes(m) and _waves(m, side) and m.when["way"] < m.when["hand"],
    "stand_walk": lambda m, _: _goes(m) and m.last_height - m.first_height > 0.2 and m.first_height < 0.8,
}


def shows(label, moves) -> bool:
    """Does a motion read as its label, e.g. walk or wave_left?"""
    name, side = split_label(label)
    return bool(CHECKS[name](moves, side))


def split_label(label):
    """wave_left -> (wave, left); walk -> (walk, None)."""
    name, _, side = label.rpartition("_")
    return (name, side) if side in MIRROR else (label, None)


def swapped(label, moves) -> bool:
    """Does a motion show the mirror image of its label, not the label itself?"""
    name, side = split_label(label)
    return side is not None and not shows(label, moves) and shows(f"{name}_{MIRROR[side]}", moves)
