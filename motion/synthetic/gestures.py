"""Gestures of the demo set on standing feet: wave, raise arms, clap, bow, punch.

Functions of a Mood -> Tracks that start and end at rest. One-sided actions are written for the left; the
right is the mirror image. Angles in degrees here.
"""

from dataclasses import dataclass

import numpy as np

from motion.synthetic.body import FPS, keyed, smooth, standing

GUARD = np.array([38, 12, -22, 112])  # a fist before the chest: flexion, abduction, outward rotation, elbow


@dataclass(frozen=True)
class Mood:
    """How an action is done: times stretch with `slow`, amplitudes with `size`."""

    slow: float = 1.0
    size: float = 1.0
    reps: int = 1
    phase: float = 0.0


def still(seconds):
    """-> Tracks at rest for this many seconds, times t [T] in seconds"""
    tracks = standing(int(round(seconds * FPS)) + 1)
    return tracks, np.arange(len(tracks)) / FPS


def _sway(tracks, t, mood):
    """Add slow sway and breath, none at the ends."""
    calm = smooth(t / 0.6) * smooth((t[-1] - t) / 0.6)
    tracks.root[:, 0] += 0.010 * calm * np.sin(1.4 * t + mood.phase)
    tracks.spine[:, 0] += 0.015 * calm * np.sin(2.0 * t + 2 * mood.phase)
    return tracks


def rise_and_fall(t, up, hold, size=1.0):
    """Envelope 0 -> size -> 0 [T]: from 0.2 s on rises for `up` seconds, holds for `hold`, falls for `up`."""
    return keyed(t, [(0.2, 0), (0.2 + up, size), (0.2 + up + hold, size), (0.2 + 2 * up + hold, 0)])


def pose_arm(tracks, side, amount, target):
    """Blend one arm from where it is to a target (degrees); amount [T] or a number."""
    amount = np.broadcast_to(amount, len(tracks))[:, None]
    tracks.arms[:, side] += amount * (np.radians(target) - tracks.arms[:, side])


def wave(mood):
    """The left hand up, the forearm swings from side to side."""
    up, period = 0.55 * mood.slow, 0.62 * mood.slow
    hold = period * mood.reps
    tracks, t = still(2 * up + hold + 0.5)
    amount = rise_and_fall(t, up, hold)
    inside = smooth((t - up) / 0.3) * smooth((0.3 + up + hold - t) / 0.3)
    swing = 24 * mood.size * inside * np.sin(2 * np.pi * (t - 0.2 - up) / period)
    goal = np.column_stack([np.full(len(t), 18.0), np.full(len(t), 82.0), np.full(len(t), 82.0), 92 + swing])
    pose_arm(tracks, 0, amount, goal)
    tracks.spine[:, 1] += np.radians(3) * amount
    return _sway(tracks, t, mood)


def raise_arms(mood, sides=(0,)):
    """Arms up in front of the body, held over the head, down again."""
    up, hold = 0.75 * mood.slow, 0.7 * mood.slow
    tracks, t = still(2 * up + hold + 0.5)
    amount = rise_and_fall(t, up, hold)
    for side in sides:
        pose_arm(tracks, side, amount, [166 * (0.96 + 0.04 * mood.size), 8, 0, 12])
    tracks.spine[:, 0] -= np.radians(3) * amount
    tracks.head -= np.radians(6) * amount
    if len(sides) == 1:
        tracks.spine[:, 1] += np.radians(4) * amount
    return _sway(tracks, t, mood)


def clap(mood):
    """Both hands before the chest, together and apart."""
    up, period = 0.5 * mood.slow, 0.5 * mood.slow
    hold = period * mood.reps
    tracks, t = still(2 * up + hold + 0.5)
    amount = rise_and_fall(t, up, hold)
    inside = smooth((t - 0.1 - up) / 0.15) * smooth((0.3 + up + hold - t) / 0.15)
    apart = (0.5 + 0.5 * inside * np.cos(2 * np.pi * (t - 0.2 - up) / period))[:, None]
    together, open_ = np.array([38, 4, -38, 74]), np.array([38, 8, -38 + 36 * mood.size, 72])
    for side in (0, 1):
        pose_arm(tracks, side, amount, together + apart * (open_ - together))
    return _sway(tracks, t, mood)


def bow(mood):
    """The trunk bends forward over straight legs."""
    down, hold = 0.8 * mood.slow, 0.5 * mood.slow
    tracks, t = still(2 * down + hold + 0.5)
    amount = rise_and_fall(t, down, hold)
    deep = np.radians(38 * mood.size) * amount
    tracks.pelvis[:, 0] += deep
    tracks.spine[:, 0] += 0.9 * deep
    tracks.head += 0.2 * deep
    tracks.root[:, 1] -= 0.13 * mood.size * amount
    tracks.arms[..., 0] += 1.1 * deep[:, None]
    return tracks


def punch(mood):
    """Fists up, the left one shoots forward and comes back."""
    ready, beat = 0.5 * mood.slow, 0.75 * mood.slow
    tracks, t = still(2 * ready + beat * mood.reps + 0.5)
    guard = rise_and_fall(t, ready, beat * mood.reps)
    hits = np.zeros(len(t))
    for k in range(mood.reps):
        start = 0.2 + ready + k * beat
        hits += keyed(t, [(start, 0), (start + 0.42 * beat, 1), (start + 0.95 * beat, 0)])
    for side in (0, 1):
        pose_arm(tracks, side, guard, GUARD)
    pose_arm(tracks, 0, hits, [84, 2, -10, 10])
    tracks.spine[:, 2] -= np.radians(24 * mood.size) * hits
    tracks.pelvis[:, 2] -= np.radians(8) * hits
    tracks.spine[:, 0] += np.radians(6) * hits
    tracks.root[:, 1] += 0.05 * hits
    tracks.height -= 0.03 * guard
    return tracks
