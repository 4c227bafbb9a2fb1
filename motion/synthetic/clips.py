"""The embedded demo set: procedural motion of 22 joints with captions, made from a seed in seconds.

A demo and a test bed, not data to draw conclusions from. `body` poses the skeleton; `gestures`, `actions` and
`gait` move it; `text` writes the captions; clips of even numbers show one action, the others a sequence of
`sequences`. Clip i depends on (seed, i) alone. Each has a posture of its own, so that no two share frames.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from motion.skeletons import SMPL22, mirror_joints
from motion.synthetic import actions as act
from motion.synthetic import gestures as gesture
from motion.synthetic import sequences
from motion.synthetic.body import HANG, Tracks, concatenate, pose, smooth
from motion.synthetic.gestures import Mood
from motion.synthetic.text import captions, tokens

SHORTEST, LONGEST = 44, 199  # frames
PACES = {"": 1.0, "slowly": 1.45, "quickly": 0.74}


@dataclass(frozen=True)
class DemoClip:
    name: str
    joints: np.ndarray  # [T,22,3] float64, metres, 20 fps, Y up, facing +Z at frame 0
    captions: list[str]
    tokens: list[list[str]]  # for each caption, its words as lemma/POS
    label: str
    split: str  # train, val or test


@dataclass(frozen=True)
class Action:
    """One action: the function that builds it, and what varies from clip to clip."""

    build: Callable[[Mood], Tracks]
    reps: tuple[int, ...] = (1,)
    paces: tuple[str, ...] = ("", "", "slowly", "quickly")
    sided: bool = False  # left and right are two labels; else the mirror image is the same action
    counted: bool = False  # the captions say how many times


STEADY = ("",)
STEPS = (6, 7, 8, 9)


ACTIONS = {
    "walk": Action(act.walk, STEPS, STEADY),
    "walk_slow": Action(lambda mood: act.walk(mood, pace=0.6), (5, 6, 7), ("slowly",)),
    "walk_fast": Action(lambda mood: act.walk(mood, pace=1.45), (8, 9, 10, 11), ("quickly",)),
    "walk_curve": Action(lambda mood: act.walk(mood, turn=95 * mood.size), (8, 9, 10), STEADY, sided=True),
    "walk_around": Action(act.walk_around, (3, 4, 5), STEADY),
    "backward": Action(act.backward, (6, 7, 8), ("", "", "slowly")),
    "side": Action(act.side_step, (6, 8, 10), ("", "", "slowly"), sided=True),
    "run": Action(act.run, (9, 10, 11, 12), STEADY),
    "crouch": Action(act.crouch, (6, 7, 8), ("", "", "slowly")),
    "jump": Action(act.jump, (1, 2), STEADY, counted=True),
    "jump_forward": Action(lambda mood: act.jump(mood, 0.7 * mood.size), (1, 2), STEADY, counted=True),
    "hop": Action(act.hop, (3, 4, 5), STEADY, sided=True, counted=True),
    "squat": Action(act.squat, (1, 2, 3), ("", "", "slowly"), counted=True),
    "sit": Action(act.sit),
    "stand_up": Action(act.stand_up),
    "bow": Action(gesture.bow),
    "wave": Action(gesture.wave, (3, 4, 5), sided=True),
    "clap": Action(gesture.clap, (2, 3, 4, 5), STEADY, counted=True),
    "kick": Action(act.kick, (1, 2), ("", "", "slowly"), sided=True, counted=True),
    "punch": Action(gesture.punch, (1, 2, 3), sided=True, counted=True),
    "raise": Action(gesture.raise_arms, sided=True),
    "raise_both": Action(lambda mood: gesture.raise_arms(mood, (0, 1))),
    "turn": Action(lambda mood: act.turn(mood, 90 * mood.size), sided=True),
    "turn_around": Action(lambda mood: act.turn(mood, 180)),
    "stand_walk": Action(lambda mood: concatenate(act.stand_up(Mood()), act.walk(mood)), (5, 6), STEADY),
}
LABELS = tuple(
    label
    for name, action in ACTIONS.items()
    for label in ((f"{name}_left", f"{name}_right") if action.sided else (name,))
)


def _label_and_round(seed, index):
    """-> label of a clip, its block, index of the label; a block of len(LABELS) clips has each label once."""
    block, place = divmod(index, len(LABELS))
    order = np.random.default_rng([seed, 1, block]).permutation(len(LABELS))
    return LABELS[order[place]], block, int(order[place])


DEMO_CLIPS = 2400  # of the demo set
THREE_PARTS = (3, 8, 13, 18)  # of every 20 sequences, those of three parts


def _split(block, number):
    """Of 20 clips of a label 16 go to train, 1 to val, 3 to test; which ones, differs between labels."""
    return {0: "val", 5: "test", 11: "test", 17: "test"}.get((block + 7 * number) % 20, "train")


def demo_clip(index, seed=3407):
    """Clip number `index` of the demo set."""
    number, kind = divmod(index, 2)
    rng = np.random.default_rng([seed, 2, index])
    tracks, texts, label, split = (_sequence if kind else _action)(number, seed, rng)
    side = label.rpartition("_")[2] if kind == 0 else ""
    joints = pose(_with_posture(tracks, rng))
    rest = rng.integers(0, 6, size=2)
    rest[1] += max(0, SHORTEST - len(joints) - rest.sum())
    assert rest[0] + len(joints) <= LONGEST, f"clip {index}: more than rest would be cut"
    joints = np.pad(joints, (tuple(rest), (0, 0), (0, 0)), mode="edge")[:LONGEST]
    if side == "right" or (kind == 0 and side != "left" and rng.random() < 0.5):
        joints = mirror_joints(joints, SMPL22)
    return DemoClip(
        name=f"demo{index:05d}",
        joints=joints,
        captions=texts,
        tokens=[tokens(text) for text in texts],
        label=label,
        split=split,
    )


def _action(number, seed, rng):
    """Tracks, captions, label and split of clip `number` of those that show one action."""
    label, block, place = _label_and_round(seed, number)
    side = label.rpartition("_")[2]
    name = label.removesuffix(f"_{side}") if side in ("left", "right") else label
    action = ACTIONS[name]
    how = str(rng.choice(action.paces))
    mood = Mood(
        slow=PACES[how] * rng.uniform(0.94, 1.06),
        size=rng.uniform(0.92, 1.08),
        reps=int(rng.choice(action.reps)),
        phase=rng.uniform(0, 2 * np.pi),
    )
    texts = captions(name, side, how, mood.reps if action.counted else 1, rng)
    return action.build(mood), texts, label, _split(block, place)


def _sequence(number, seed, rng):
    """As `_action`, of a sequence. Of 20, 16 go to train (4 of them of three parts), 1 to val, 3 to test."""
    block, place = divmod(number, 20)
    if place in THREE_PARTS:
        split, order = "train", None
    else:
        split, kind, rank, n = _pair_turn(place)
        orders = sequences.ORDERS[kind]
        turn, rank = divmod(block * n + rank, len(orders))
        order = orders[np.random.default_rng([seed, 3, len(orders), turn]).permutation(len(orders))[rank]]
    made = None
    while made is None:
        labels = sequences.with_sides(order or sequences.draw_triple(rng), rng)
        made = sequences.sequence(labels, rng, LONGEST - 5)  # with up to five frames of rest before
    tracks, reps = made
    return tracks, sequences.captions(labels, reps, rng), "+".join(labels), split


def _pair_turn(place):
    """-> split, kind of order, rank among such pairs of 20 sequences, how many these are."""
    test = {5: "seen", 11: "order", 17: "pair"}
    if place in test:
        return "test", test[place], 0, 1
    if place == 0:
        return "val", "seen", 0, 1
    others = [k for k in range(1, 20) if k not in test and k not in THREE_PARTS]
    return "train", "seen", others.index(place), len(others)


def _with_posture(tracks, rng):
    """Add a random posture of trunk, head and hanging arms, the same in every frame."""
    hanging = 1 - smooth(np.abs(tracks.arms - HANG).max(axis=-1) / np.radians(30))  # [T,2]
    tracks.arms += hanging[..., None] * np.radians(rng.uniform((-4, 0, 0, 0), (4, 5, 0, 4), size=(2, 4)))
    tracks.spine[:, :2] += np.radians(rng.uniform(-2, 2, size=2))
    tracks.height -= rng.uniform(0, 0.012)
    tracks.head += np.radians(rng.uniform(-6, 6))
    return tracks


def demo_clips(n_clips=DEMO_CLIPS, seed=3407) -> Iterator[DemoClip]:
    """The first n_clips of the demo set, one by one."""
    return (demo_clip(index, seed) for index in range(n_clips))
