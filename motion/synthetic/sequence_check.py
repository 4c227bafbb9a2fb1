"""Recognise sequences of the demo set's actions from joints alone: what happens, when, and how often."""

from functools import lru_cache
from itertools import combinations

import numpy as np
from scipy.signal import find_peaks

from motion.synthetic.geometry_check import ANKLES, FEET, PELVIS, describe, shows

STEP = 4  # frames between the places at which a motion is cut
SHORTEST = 20  # frames in which an action can be seen
# further conditions on a piece: its label's check is made for whole clips, and a jump begins with a crouch
PIECES = {"sit": lambda m: m.last_height < 0.66, "jump": lambda m: m.last_height > 0.8}


class Cuts:
    """A motion [T,22,3] and what its pieces show."""

    def __init__(self, joints):
        self.joints, self.ends = joints, [*range(0, len(joints) - STEP, STEP), len(joints)]
        self.moves = lru_cache(maxsize=None)(lambda start, end: describe(joints[start:end]))

    def shows(self, label, start, end):
        if end - start < SHORTEST:
            return False
        moves = self.moves(start, end)
        return shows(label, moves) and PIECES.get(label, bool)(moves)

    def first_end(self, label, start):
        """The earliest end of a piece after `start` that shows the label, None where none does.

        The first piece begins with the motion; others begin wherever it suits.
        """
        for end in self.ends:
            begins = [0] if start == 0 else [b for b in self.ends if b >= start]
            if any(self.shows(label, begin, end) for begin in begins):
                return end
        return None

    def last_start(self, label):
        """The latest start of an end piece that shows the label, None where none does."""
        last = len(self.joints)
        return next((start for start in reversed(self.ends[:-1]) if self.shows(label, start, last)), None)


def happens(joints, labels):
    """Does a motion show these labels one after the other, and nothing before the first or after the last?"""
    cuts, start = Cuts(np.asarray(joints)), 0
    begins = cuts.last_start(labels[-1])
    for label in labels[:-1]:
        start = cuts.first_end(label, start)
        if start is None or begins is None or start > begins:
            return False
    return True


def in_order(joints, labels):
    """`happens`, and not in another order too."""
    others = [x for x in _orders(labels) if x != tuple(labels)]
    return happens(joints, labels) and not any(happens(joints, order) for order in others)


def _orders(labels):
    """Every order in which two labels of the given one are exchanged."""
    for a, b in combinations(range(len(labels)), 2):
        order = list(labels)
        order[a], order[b] = order[b], order[a]
        yield tuple(order)


def count(name, joints, side=None):
    """How often one action is done in a motion that shows nothing else: clap, jump, squat, kick."""
    if name == "clap":
        return describe(joints).claps
    floor = np.percentile(joints[:, FEET, 1], 2)
    if name == "jump":
        track, least = joints[:, FEET, 1].min(axis=1) - floor, 0.08
    elif name == "squat":
        track, least = -joints[:, PELVIS, 1], 0.2
    else:
        own, other = ANKLES if side == "left" else ANKLES[::-1]
        track, least = joints[:, own, 1] - joints[:, other, 1], 0.3
    padded = np.pad(track, 1, constant_values=track.min())
    return len(find_peaks(padded, prominence=least)[0])
