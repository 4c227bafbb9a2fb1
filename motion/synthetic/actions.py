"""Actions of the demo set that move the whole body: kick, squat, sit, jump, hop, and the gaits.

As in `gestures`: functions of a Mood -> Tracks, written for the left. All end at rest on their feet but
`sit`, and all start so but `stand_up`.
"""

import numpy as np
from scipy.interpolate import CubicHermiteSpline

from motion.synthetic.body import FPS, STANCE, STAND_HEIGHT, concatenate, keyed, smooth, standing
from motion.synthetic.gait import Gait, travel
from motion.synthetic.gestures import Mood, pose_arm, rise_and_fall, still

GRAVITY = 9.81


def kick(mood):
    """Weight on the right leg, the left one swings forward and up."""
    shift, beat = 0.45 * mood.slow, 1.1 * mood.slow
    tracks, t = still(2 * shift + beat * mood.reps + 0.6)
    amount = rise_and_fall(t, shift, beat * mood.reps)
    tracks.root[:, 0] -= 0.085 * amount
    for k in range(mood.reps):
        start = 0.15 + shift + k * beat
        times = start + beat * np.array([0, 0.30, 0.55, 0.80, 1.0])
        out = keyed(t, list(zip(times, [0.0, -0.02, 0.74 * mood.size, 0.12, 0.0])))
        high = keyed(t, list(zip(times, [0.0, 0.26, 0.62 * mood.size, 0.22, 0.0])))
        tip = keyed(t, list(zip(times, [0, 35, -35, 10, 0])))
        tracks.foot[:, 0, 1] += out
        tracks.lift[:, 0] += high
        tracks.toe[:, 0] -= np.radians(tip)
        tracks.pelvis[:, 0] -= np.radians(14) * np.clip(out, 0, None)
        tracks.spine[:, 0] += np.radians(6) * np.clip(out, 0, None)
        pose_arm(tracks, 1, np.clip(out / 0.7, 0, 1), [42, 22, 0, 45])
        pose_arm(tracks, 0, np.clip(out / 0.7, 0, 1), [-22, 28, 0, 25])
    return tracks


def squat(mood):
    """Down until the thighs are level, the arms out in front, up again."""
    down, hold = 0.75 * mood.slow, 0.15 * mood.slow
    beat = 2 * down + hold
    tracks, t = still(beat * mood.reps + 0.5)
    amount = sum(rise_and_fall(t - k * beat, down, hold) for k in range(mood.reps))
    tracks.height -= 0.43 * mood.size * amount
    tracks.root[:, 1] -= 0.12 * amount
    tracks.pelvis[:, 0] += np.radians(24) * amount
    tracks.spine[:, 0] += np.radians(12) * amount
    tracks.head -= np.radians(24) * amount
    for side in (0, 1):
        pose_arm(tracks, side, amount, [104, 6, 0, 12])
    return tracks


def _seated(t, amount, mood):
    """Tracks of somebody between standing (amount 0) and sitting on a chair (1)."""
    tracks = standing(len(t))
    hurry = 4 * amount * (1 - amount)  # the trunk leans only on the way
    tracks.height -= (0.385 + 0.02 * (mood.size - 1)) * amount
    tracks.root[:, 1] -= 0.36 * amount
    tracks.pelvis[:, 0] += np.radians(28) * hurry - np.radians(4) * amount
    tracks.spine[:, 0] += np.radians(18) * hurry + np.radians(6) * amount
    tracks.head -= np.radians(20) * hurry
    for side in (0, 1):
        pose_arm(tracks, side, amount, [32, 5, -8, 48])
        tracks.arms[:, side, 0] += np.radians(20) * hurry
    return tracks


def sit(mood):
    """From standing onto a chair; stays there."""
    down = 1.2 * mood.slow
    t = np.arange(int(round((0.3 + down + 0.9) * FPS)) + 1) / FPS
    return _seated(t, smooth((t - 0.3) / down), mood)


def sit_and_rise(mood):
    """Onto a chair, a moment there, and up again."""
    half, rest = 1.2 * mood.slow, 0.7 * mood.slow
    t = np.arange(int(round((0.3 + 2 * half + rest + 0.4) * FPS)) + 1) / FPS
    return _seated(t, smooth((t - 0.3) / half) - smooth((t - 0.3 - half - rest) / half), mood)


def stand_up(mood):
    """From a chair to standing."""
    up = 1.2 * mood.slow
    t = np.arange(int(round((0.6 + up + 0.4) * FPS)) + 1) / FPS
    return _seated(t, 1 - smooth((t - 0.6) / up), mood)


def jump(mood, distance=0.0):
    """Both feet leave the floor together; the pelvis flies a parabola."""
    parts = [_one_jump(mood, distance) for _ in range(mood.reps)]
    tracks = parts[0]
    for part in parts[1:]:
        tracks = concatenate(tracks, part)
    return tracks


def _one_jump(mood, distance):
    flight = 0.42 + 0.06 * mood.size
    crouch, push, land = 0.45 * mood.slow, 0.28, 0.25
    times = np.cumsum([0.15, crouch, push, flight, land, 0.5 * mood.slow])
    tracks, t = still(times[-1] + 0.1)
    off, down = times[2], times[3]
    speed, top = GRAVITY * flight / 2, STAND_HEIGHT + 0.03
    deep = STAND_HEIGHT - 0.24 * mood.size
    heights = [STAND_HEIGHT, deep, top, top, STAND_HEIGHT - 0.2, STAND_HEIGHT]
    curve = CubicHermiteSpline(times, heights, [0, 0, speed, -speed, 0, 0])
    tracks.height[:] = np.where((t > times[0]) & (t < times[-1]), curve(t), STAND_HEIGHT)
    u = np.clip((t - off) / flight, 0, 1)
    tracks.lift += (GRAVITY * flight**2 / 2 * u * (1 - u) + 0.07 * np.sin(np.pi * u) ** 2)[:, None]
    tracks.heel += (
        np.radians(32)
        * keyed(t, [(off - 0.15, 0), (off + 0.1, 1), (down - 0.05, 0.25), (down + 0.15, 0)])[:, None]
    )
    tracks.foot[..., 1] += distance * (u * u * (3 - 2 * u))[:, None]
    tracks.root[:, 1] += keyed(t, [(times[1], 0), (times[4], distance)])
    bent = keyed(
        t,
        [
            (times[0], 0),
            (times[1], 1),
            (off + 0.05, 0.05),
            (down - 0.05, 0.1),
            (times[4], 0.8),
            (times[5], 0),
        ],
    )
    tracks.root[:, 1] -= 0.05 * bent
    tracks.pelvis[:, 0] += np.radians(26) * bent
    tracks.spine[:, 0] += np.radians(16) * bent
    tracks.head -= np.radians(22) * bent
    swing = [(times[0], 0), (times[1], -38), (off + 0.12, 95 * mood.size), (times[4], 32), (times[5], 0)]
    tracks.arms[..., 0] += np.radians(keyed(t, swing))[:, None]
    tracks.arms[..., 3] += np.radians(25) * bent[:, None]
    return tracks


def hop(mood):
    """On the left foot, the right one held behind; the body leaves the floor at every hop."""
    ready, contact, flight = 0.6, 0.30, 0.26 + 0.04 * mood.size
    beat = contact + flight
    start = 0.2 + ready
    end = start + beat * mood.reps
    tracks, t = still(end + ready + 0.4)
    speed, high = GRAVITY * flight / 2, GRAVITY * flight**2 / 8
    knots = [(start, 0, 0)]
    for k in range(mood.reps):
        off = start + k * beat + contact
        knots += [(off - contact / 2, -0.09, 0), (off, 0, speed), (off + flight, 0, -speed)]
    knots += [(end + contact / 2, -0.09, 0), (end + 0.6, 0, 0)]
    times, heights, speeds = np.transpose(knots)
    body = CubicHermiteSpline(times, heights, speeds)(np.clip(t, times[0], times[-1]))
    u = np.where((t >= start) & (t < end), (t - start) % beat - contact, -1.0) / flight
    rise = np.where(u > 0, 4 * high * u * (1 - u), 0.0)
    amount = keyed(t, [(0.2, 0), (start, 1), (end + 0.2, 1), (end + 0.2 + ready, 0)])
    tracks.root[:, 0] += 0.085 * amount
    tracks.height += body - 0.02 * amount
    tracks.lift[:, 0] += rise
    tracks.heel[:, 0] += np.radians(24) * np.sin(np.pi * np.clip((u + 0.3) / 1.3, 0, 1)) ** 2
    tracks.lift[:, 1] += (0.30 + body) * amount
    tracks.foot[:, 1, 1] -= 0.24 * amount
    tracks.foot[:, 1, 0] += 0.03 * amount
    tracks.toe[:, 1] -= np.radians(50) * amount
    tracks.spine[:, 0] += np.radians(8) * amount
    for side in (0, 1):
        pose_arm(tracks, side, amount, [22, 26, 0, 70])
        tracks.arms[:, side, 1] += 1.2 * rise
    return tracks


RUN = {"swing": 0.63, "lift": 0.24, "heel": 0.9, "toe": 0.1, "arms": 1.0, "elbow": 1.15, "lean": 0.11}
RUN |= {"bob": 0.085, "height": STAND_HEIGHT - 0.10, "ramp": 2.8}


def walk(mood, turn=0.0, pace=1.0, rest=(0.25, 0.35)):
    """`reps` steps forward. pace: 1 is ordinary; a slower walk takes shorter and longer-lasting steps."""
    speed, step = 1.08 * pace * mood.size, 0.56 / pace**0.6
    gait = Gait(speed, step, arms=0.9 * pace**0.3, lean=0.03 + 0.06 * (pace - 1))
    return travel(gait, mood.reps, np.radians(turn), rest)


def walk_around(mood):
    """`reps` steps forward, half a turn on the spot, as many steps back."""
    back = concatenate(turn(Mood(0.88), 180), walk(mood, rest=(0.1, 0.35)))
    return concatenate(walk(mood, rest=(0.25, 0.1)), back)


def run(mood, turn=0.0):
    return travel(Gait(2.6 * mood.size, 0.36, **RUN), mood.reps, np.radians(turn))


def backward(mood):
    gait = Gait(0.70 * mood.size / mood.slow, 0.60 * mood.slow, heel=0.35, toe=0.0, heading=np.pi)
    return travel(gait, mood.reps)


def side_step(mood):
    """To the left: the left foot reaches out, the right one closes up."""
    speed, step = 0.42 * mood.size / mood.slow, 0.50 * mood.slow
    wide = STANCE + speed * step / 2
    return travel(
        Gait(speed, step, swing=0.34, lift=0.06, heel=0.12, toe=0.0, width=wide, heading=np.pi / 2),
        mood.reps,
    )


def crouch(mood):
    speed, step = 0.72 * mood.size / mood.slow, 0.62 * mood.slow
    gait = Gait(speed, step, lift=0.09, heel=0.5, elbow=0.6, lean=0.32, height=0.66)
    return travel(gait, mood.reps, rest=(0.55, 0.6))


def turn(mood, degrees=90.0):
    """On the spot, in steps of 30 degrees at the most."""
    gait = Gait(0.0, 0.44 * mood.slow, lift=0.06, heel=0.3, toe=0.0, width=STANCE)
    steps = 4 if degrees < 120 else 6
    return travel(gait, steps, np.radians(degrees), rest=(0.15, 0.2))
