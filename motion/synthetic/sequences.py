"""Sequences of the demo set: two or three actions one after the other, and their captions.

The training split holds every pair of actions in both orders, except for two sets that a fixed seed selects:
of a fifth of the pairs one order is held out, of another fifth both. A model that has learned which words of
a caption give the order can generate these all the same.
"""

from collections import Counter
from functools import reduce
from itertools import combinations
from typing import NamedTuple

import numpy as np

from motion.synthetic import actions as act
from motion.synthetic import gestures as gesture
from motion.synthetic.body import concatenate, mirrored
from motion.synthetic.gestures import Mood
from motion.synthetic.text import PEOPLE, TIMES

HELD_OUT = 0.2  # share of the pairs in each of the two held-out sets
HELD_OUT_SEED = 7


class Part(NamedTuple):
    """An action that can stand in a sequence."""

    build: callable  # Mood -> Tracks, from standing to standing
    reps: tuple[int, ...]
    clauses: tuple[str, ...]  # what the person does; the verb comes first
    sided: bool = False
    counted: bool = False  # the captions say how many times


PARTS = {
    "walk": Part(
        lambda mood: act.walk(mood, rest=(0.15, 0.25)),
        (4, 5),
        ("walks forward", "walks ahead", "takes several steps forward", "goes straight ahead"),
    ),
    "backward": Part(
        act.backward,
        (4, 5),
        ("walks backwards", "steps backwards", "takes several steps back", "moves backward"),
    ),
    "side": Part(
        act.side_step,
        (6, 8),
        ("sidesteps to the {side}", "steps sideways to the {side}", "shuffles sideways to the {side}"),
        sided=True,
    ),
    "jump": Part(
        act.jump,
        (1, 2),
        ("jumps up {times}", "jumps in place {times}", "leaps up on the spot {times}"),
        counted=True,
    ),
    "hop": Part(
        act.hop,
        (3, 4),
        ("hops on {his} {side} foot {times}", "hops in place on the {side} leg {times}"),
        sided=True,
        counted=True,
    ),
    "squat": Part(
        act.squat,
        (1, 2),
        ("squats {times}", "squats down and stands up {times}", "bends {his} knees into a squat {times}"),
        counted=True,
    ),
    "sit": Part(
        act.sit_and_rise,
        (1,),
        ("sits down", "sits down on a chair", "takes a seat", "lowers into a chair"),
    ),
    "bow": Part(gesture.bow, (1,), ("bows", "takes a bow", "bends forward to bow")),
    "wave": Part(
        gesture.wave,
        (2, 3),
        ("waves with {his} {side} hand", "waves {his} {side} hand", "waves hello with the {side} arm"),
        sided=True,
    ),
    "clap": Part(
        gesture.clap,
        (2, 3, 4),
        ("claps {his} hands {times}", "claps {times}", "claps both hands together {times}"),
        counted=True,
    ),
    "kick": Part(
        act.kick,
        (1, 2),
        ("kicks with {his} {side} leg {times}", "kicks forward with the {side} foot {times}"),
        sided=True,
        counted=True,
    ),
    "punch": Part(
        gesture.punch,
        (1, 2),
        ("punches with {his} {side} hand {times}", "strikes with the {side} fist {times}"),
        sided=True,
        counted=True,
    ),
    "raise_both": Part(
        lambda mood: gesture.raise_arms(mood, (0, 1)),
        (1,),
        ("raises both arms", "lifts both arms above the head", "puts both hands up in the air"),
    ),
    "turn": Part(
        lambda mood: act.turn(mood, 90 * mood.size),
        (1,),
        ("turns to the {side} on the spot", "turns to {his} {side} in place", "rotates to the {side}"),
        sided=True,
    ),
}
# A, B: clauses in the order of what happens; Aing: the clause with its verb as a gerund
PAIRS = (
    "{who} {A} and then {B}",
    "{who} {A}, then {B}",
    "first {who} {A}, then {B}",
    "{who} first {A} and finally {B}",
    "{who} {A} and afterwards {B}",
    "{who} {A} before {Bing}",
    "before {Bing} {who} {A}",
    "{who} {B} after {Aing}",
    "after {Aing} {who} {B}",
)
TRIPLES = (
    "{who} {A}, then {B} and finally {C}",
    "first {who} {A}, then {B} and finally {C}",
    "{who} {A} and then {B} before {Cing}",
    "after {Aing} {who} {B} and then {C}",
    "{who} {A}, {B} and then {C}",
)
CAPTIONS = 6  # of a sequence
_GERUNDS = """
walks:walking takes:taking goes:going steps:stepping moves:moving sidesteps:sidestepping shuffles:shuffling
jumps:jumping leaps:leaping hops:hopping squats:squatting stands:standing bends:bending sits:sitting
lowers:lowering bows:bowing waves:waving claps:clapping kicks:kicking punches:punching strikes:striking
raises:raising lifts:lifting puts:putting turns:turning rotates:rotating
"""
GERUNDS = dict(pair.split(":") for pair in _GERUNDS.split())


def _pairs():
    """One tuple (a, b) for each two different actions, and (left, right) for each action with sides."""
    return [
        *combinations(PARTS, 2),
        *((f"{name}_left", f"{name}_right") for name, part in PARTS.items() if part.sided),
    ]


def _balanced(pairs, n, rng):
    """Choose n of the pairs so that every action stands in about equally many."""
    chosen, count = [], Counter()
    for _ in range(n):
        left = [pair for pair in pairs if pair not in chosen]
        often = [(sum(count[_name(label)] for label in pair), rng.random()) for pair in left]
        chosen.append(left[min(range(len(left)), key=often.__getitem__)])
        count.update(_name(label) for label in chosen[-1])
    return chosen


def _name(label):
    """wave_left -> wave"""
    return label if label in PARTS else label.rpartition("_")[0]


def _split_orders():
    """Ordered pairs (first, second) by kind: "seen" in training; "order", only its reverse is seen; "pair",
    neither order is."""
    rng, pairs = np.random.default_rng(HELD_OUT_SEED), _pairs()
    n = round(HELD_OUT * len(pairs))
    never = _balanced(pairs, n, rng)
    once = _balanced([pair for pair in pairs if pair not in never], n, rng)
    once = [pair if rng.random() < 0.5 else pair[::-1] for pair in once]
    unseen = {order for pair in never for order in (pair, pair[::-1])}
    both = [order for pair in pairs for order in (pair, pair[::-1])]
    seen = [order for order in both if order not in unseen and order not in once]
    return {"seen": seen, "order": once, "pair": [order for order in both if order in unseen]}


ORDERS = _split_orders()  # "seen", "order" (held out, its reverse is seen), "pair" (held out both ways)


def kind_of(labels):
    """Labels in order -> the hardest kind among their ordered pairs: "pair", else "order", else "seen"."""
    kinds = {order: kind for kind, orders in ORDERS.items() for order in orders}
    found = set()
    for first, second in combinations(labels, 2):
        same = _name(first) == _name(second)
        found.add(kinds[(first, second) if same else (_name(first), _name(second))])
    return next(kind for kind in ("pair", "order", "seen") if kind in found)


def with_sides(order, rng):
    """Names or labels -> labels, a side drawn for each name that has one."""
    sided = [label in PARTS and PARTS[label].sided for label in order]
    return [f"{x}_{rng.choice(['left', 'right'])}" if one else x for x, one in zip(order, sided)]


def draw_triple(rng):
    """Three different actions of which each two are seen in this order."""
    while True:
        names = [str(name) for name in rng.choice(list(PARTS), 3, replace=False)]
        if kind_of(names) == "seen":
            return names


def fewest(labels):
    """The smallest number of repetitions of each part."""
    return [PARTS[_name(label)].reps[0] for label in labels]


def sequence(labels, rng, longest):
    """Labels -> (Tracks, repeats of each part); None where they cannot be done in `longest` frames."""
    for slowest in np.linspace(1.0, 0.88, 7):
        few = len(labels) > 2 or slowest < 0.95
        reps = fewest(labels) if few else [int(rng.choice(PARTS[_name(label)].reps)) for label in labels]
        tracks = _one_after_the_other(labels, reps, slowest, rng)
        if len(tracks) <= longest:
            return tracks, reps
    return None


def _one_after_the_other(labels, reps, slowest, rng):
    parts = []
    for place, (label, n) in enumerate(zip(labels, reps), start=1):
        mood = Mood(rng.uniform(0.85, 1) * slowest, rng.uniform(0.92, 1.08), n, rng.uniform(0, 2 * np.pi))
        stays = label == "sit" and place == len(labels)
        part = (act.sit if stays else PARTS[_name(label)].build)(mood)
        side = label.rpartition("_")[2] if PARTS[_name(label)].sided else rng.choice(["left", "right"])
        parts.append(mirrored(part) if side == "right" else part)
    return reduce(concatenate, parts)


def captions(labels, reps, rng):
    """CAPTIONS different sentences about a sequence."""
    templates, out = PAIRS if len(labels) == 2 else TRIPLES, {}
    while len(out) < CAPTIONS:
        out[sentence(templates[rng.integers(len(templates))], labels, reps, rng)] = None
    return list(out)


def sentence(template, labels, reps, rng):
    """A template of PAIRS or TRIPLES with a clause for each label; reps: how often each is done."""
    who, his = PEOPLE[rng.integers(len(PEOPLE))]
    holes = {"who": who}
    for letter, label, n in zip("ABC", labels, reps):
        part, side = PARTS[_name(label)], label.rpartition("_")[2]
        clause = part.clauses[rng.integers(len(part.clauses))]
        clause = clause.format(his=his, side=side, times=TIMES[n] if part.counted else "")
        holes[letter] = " ".join(clause.split())
        holes[f"{letter}ing"] = _gerund(holes[letter])
    return template.format(**holes)


def _gerund(clause):
    """walks forward -> walking forward; squats down and stands up -> squatting down and standing up"""
    verbs = (verb.split(" ", 1) for verb in clause.split(" and "))
    return " and ".join(" ".join([GERUNDS[first], *rest]) for first, *rest in verbs)
