"""Steps of the demo set: walking, running, side-steps, turns.

A path is integrated from speed and heading; each foot then stands where the path passes during its stance,
and travels only while it is in the air. Arms, hips and sway follow from where the feet are.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from motion.synthetic.body import FPS, HANG, STANCE, STAND_HEIGHT, TOES_OUT, forward_of, smooth, standing

FINE = 0.01  # seconds between points of the integrated path


@dataclass(frozen=True)
class Gait:
    speed: float  # m/s when under way
    step: float  # seconds from one landing to the next
    swing: float = 0.38  # share of a stride (two steps) that a foot is in the air
    lift: float = 0.07  # m, of the sole in mid-swing
    heel: float = 0.75  # rad, heel raised when the toe leaves the floor
    toe: float = 0.22  # rad, toe raised when the heel lands
    width: float = 0.075  # m, half the distance between the tracks of the feet
    heading: float = 0.0  # rad, direction of travel as seen by the walker: 0 forward, pi/2 left, pi back
    arms: float = 0.9  # rad of arm swing per metre between the feet
    elbow: float = 0.0  # rad of extra elbow bend
    lean: float = 0.03  # rad of the trunk, forward
    bob: float = 0.0  # m of rise per square metre between the feet (running)
    height: float = STAND_HEIGHT
    ramp: float = 1.3  # steps to reach the speed, and to stop
    passing: float = 0.42  # share of a stance after which the body is over the foot


def _bump(u, peak):
    """Smooth hill over 0..1 with its top at peak."""
    return smooth(u / peak) * smooth((1 - u) / (1 - peak))


def _glide(u):
    """Step from 0 to 1 with a lower top speed than `smooth`: a foot on its way."""
    u = np.clip(u, 0.0, 1.0)
    return 0.6 * u * u * (3 - 2 * u) + 0.4 * smooth(u)


def _path(gait, start, stop, total, turn):
    """-> times, x z [N,2] and yaw [N] of the path on a fine time grid; the turn is spread over the way."""
    t = np.arange(0, total + 2 * FINE, FINE)
    ramp = min(gait.ramp * gait.step, 0.4 * (stop - start))
    under_way = smooth((t - start) / ramp) * smooth((stop + 0.1 - t) / ramp)
    yaw = turn * np.cumsum(under_way) / under_way.sum()
    velocity = (gait.speed * under_way)[:, None] * forward_of(yaw + gait.heading)
    return t, np.cumsum(velocity, axis=0) * FINE, yaw


def travel(gait, steps, turn=0.0, rest=(0.25, 0.35)):
    """Tracks of `steps` steps, left foot first; rest: seconds before, after; turn: rad, left positive."""
    swing = 2 * gait.step * gait.swing
    lifts = max(rest[0], 0.4 * gait.step) + gait.step * np.arange(steps)  # the heel comes up before
    total = lifts[-1] + swing + rest[1]
    tracks = standing(int(round(total * FPS)) + 1)
    t = np.arange(len(tracks)) / FPS
    fine, path, yaw = _path(gait, lifts[0], lifts[-1] + swing, total, turn)
    tracks.yaw = np.interp(t, fine, yaw)
    tracks.root = np.column_stack([np.interp(t, fine, path[:, axis]) for axis in (0, 1)])
    for side in (0, 1):
        own = lifts[side::2]
        landings = own + swing
        stances = landings[:-1] + gait.passing * (own[1:] - landings[:-1])
        stances = np.concatenate([[0.0], stances, [fine[-1]]])
        width = np.full(len(stances), gait.width)
        width[[0, -1]] = STANCE
        _place(tracks, side, t, own, swing, gait, _prints(side, stances, width, fine, path, yaw))
    if turn:
        for k, lift in enumerate(lifts):
            _go_round(tracks, k % 2, (t - lift) / swing)
    _follow(tracks, gait)
    return tracks


def _go_round(tracks, side, u, room=0.15):
    """Let a foot in the air (0 < u < 1) pass beside the other one: on a curve their ways would meet."""
    left = np.column_stack([np.cos(tracks.yaw), -np.sin(tracks.yaw)])
    ahead = forward_of(tracks.yaw)
    middle = tracks.foot + 0.07 * forward_of(tracks.foot_yaw)
    gap = (middle[:, side] - middle[:, 1 - side]) * (1 - 2 * side)
    beside = (u > 0) & (u < 1) & (np.abs(np.sum(gap * ahead, axis=1)) < 0.25)
    apart = np.sum(gap * left, axis=1)[beside]
    if apart.size and apart.min() < room:
        away = (1 - 2 * side) * (room - apart.min()) * np.sin(np.pi * np.clip(u, 0, 1)) ** 2
        tracks.foot[:, side] += away[:, None] * left


def _prints(side, times, width, fine, path, yaw):
    """Where one foot stands: x z [K,2] and yaw [K] at the times that the body passes over it."""
    sign = 1 - 2 * side
    facing = np.interp(times, fine, yaw)
    centre = np.column_stack([np.interp(times, fine, path[:, axis]) for axis in (0, 1)])
    left = np.column_stack([np.cos(facing), -np.sin(facing)])
    return centre + sign * width[:, None] * left, facing + sign * TOES_OUT


def _place(tracks, side, t, lifts, swing, gait, prints):
    """Write the tracks of one foot from its prints and the times at which it leaves them."""
    place, facing = prints
    tracks.foot[:, side], tracks.foot_yaw[:, side] = place[0], facing[0]
    for k, lift in enumerate(lifts):
        u = (t - lift) / swing
        move = _glide((u - 0.04) / 0.94)
        stride = place[k + 1] - place[k]
        far = min(1.0, np.linalg.norm(stride) / 0.5)
        tracks.foot[:, side] += move[:, None] * stride
        tracks.foot_yaw[:, side] += move * (facing[k + 1] - facing[k])
        inside = np.clip(u, 0, 1)
        tracks.lift[:, side] += (0.05 + (gait.lift - 0.05) * far) * np.sin(np.pi * inside**0.8)
        roll = np.clip((t - lift + 0.35 * gait.step) / (0.35 * gait.step + 0.6 * swing), 0, 1)
        peak = 0.35 * gait.step / (0.35 * gait.step + 0.6 * swing) + 0.06
        tracks.heel[:, side] += gait.heel * (0.3 + 0.7 * far) * _bump(roll, peak)
        tracks.toe[:, side] += gait.toe * far * _bump((u - 0.6) / 0.65, 0.6)


def _follow(tracks, gait):
    """Let height, sway, hips, spine and arms follow the feet."""
    ahead = forward_of(tracks.yaw)
    left = np.column_stack([ahead[:, 1], -ahead[:, 0]])
    from_root = tracks.foot - tracks.root[:, None]
    reach = np.einsum("tsi,ti->ts", from_root, ahead)  # [T,2] how far each foot is in front
    from_end = np.minimum(np.arange(len(tracks)), np.arange(len(tracks))[::-1]) / FPS
    walking, begun = smooth(from_end / 0.8), smooth(from_end / 0.25)
    apart = begun * gaussian_filter1d(reach[:, 0] - reach[:, 1], 1.0, mode="nearest")
    weight = np.maximum(1 - tracks.lift / 0.05, 0.0) + 1e-3
    side = np.einsum("tsi,ti->ts", from_root, left)
    sway = np.sum(weight * side, axis=1) / weight.sum(axis=1)
    tracks.root += 0.35 * (begun * gaussian_filter1d(sway, 2.5, mode="nearest"))[:, None] * left
    tracks.height += walking * (gait.height - STAND_HEIGHT) + gait.bob * apart**2
    tracks.pelvis[:, 0] = walking * gait.lean
    tracks.pelvis[:, 2] = -np.clip(0.16 * apart, -0.15, 0.15)
    tracks.spine[:, 0] = walking * gait.lean * 1.5
    tracks.spine[:, 2] = np.clip(0.28 * apart, -0.26, 0.26)
    tracks.head[:] = -0.8 * walking * gait.lean
    for arm, sign in ((0, -1), (1, 1)):
        swing = sign * gait.arms * np.tanh(1.2 * apart) / 1.2
        tracks.arms[:, arm] = HANG
        tracks.arms[:, arm, 0] += swing + walking * 0.25 * gait.elbow
        tracks.arms[:, arm, 3] += walking * gait.elbow + np.clip(0.5 * swing, -0.1, 0.6)
