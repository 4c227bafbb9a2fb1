"""Sequences of the demo set: which orders training hears, how they are said, how geometry sees them."""

from collections import Counter

import numpy as np
import pytest

from experiments import order_check
from motion.skeletons import SMPL22, mirror_joints
from motion.synthetic import actions, sequences
from motion.synthetic.body import mirrored, pose
from motion.synthetic.clips import ACTIONS, demo_clip, demo_clips
from motion.synthetic.gestures import Mood
from motion.synthetic.sequence_check import happens, in_order
from motion.synthetic.text import tokens
from utils.data.shared_motion import pose_distances, shared_frames
from utils.statistics import wilson


@pytest.fixture(scope="module")
def clips():
    return [demo_clip(index) for index in range(1, 1200, 2)]


def test_tracks_mirrored_are_joints_mirrored():
    tracks = actions.hop(Mood(reps=3))
    np.testing.assert_allclose(pose(mirrored(tracks)), mirror_joints(pose(tracks), SMPL22), atol=1e-12)


def test_a_fifth_of_the_pairs_lacks_an_order_and_a_fifth_both():
    seen, order, pair = (set(sequences.ORDERS[kind]) for kind in ("seen", "order", "pair"))
    pairs = len(sequences.PARTS) * (len(sequences.PARTS) - 1) // 2
    pairs += sum(part.sided for part in sequences.PARTS.values())
    assert len(seen | order | pair) == len(seen) + len(order) + len(pair) == 2 * pairs
    assert len(order) == len(pair) / 2 == round(0.2 * pairs)
    assert {x[::-1] for x in order} <= seen and {x[::-1] for x in pair} == pair
    for held_out in (order, pair):  # no action stands in many more of them than another
        counts = Counter(label.removesuffix("_left").removesuffix("_right") for x in held_out for label in x)
        assert max(counts.values()) <= 2 * min(counts.values()) and set(counts) == set(sequences.PARTS)
    assert ("walk", "wave") in seen  # prompt_check asks for it
    assert set(sequences.PARTS) <= set(ACTIONS)  # every part is shown alone


def test_training_never_hears_what_is_held_out(clips):
    kinds = Counter((clip.split, sequences.kind_of(clip.label.split("+"))) for clip in clips)
    assert {kind for split, kind in kinds if split != "test"} == {"seen"}
    assert kinds["test", "seen"] == kinds["test", "order"] == kinds["test", "pair"] == 30
    pairs = [clip.label.split("+") for clip in clips if clip.split == "train" and clip.label.count("+") == 1]
    shown = {tuple(sequences._name(label) for label in pair) for pair in pairs}
    assert {tuple(map(sequences._name, order)) for order in sequences.ORDERS["seen"]} <= shown
    assert sum(clip.label.count("+") == 2 for clip in clips) == 120


def test_captions_say_the_parts_in_their_order():
    rng, labels = np.random.default_rng(0), ("sit", "clap")
    said = {t: sequences.sentence(t, labels, (1, 2), rng) for t in sequences.PAIRS}
    assert all(text == " ".join(text.split()) and tokens(text) for text in said.values())
    sits = ("sits", "sitting", "takes", "taking", "lowers", "lowering")
    for template, text in said.items():
        first = next(word for word in text.split() if word in (*sits, "claps", "clapping"))
        assert (first in sits) == (template.index("{A") < template.index("{B"))
        word = next((word for word in ("before", "after") if word in text.split()), None)
        done = text.split()[text.split().index(word) + 1] if word else None
        assert word is None or (done in sits) == (word == "after"), text  # A before B-ing, B after A-ing
    for part in sequences.PARTS.values():
        for clause in part.clauses:
            assert sequences._gerund(clause).split()[0].endswith("ing")


def test_real_sequences_pass_and_reversed_ones_do_not(clips):
    some = [(clip.joints, clip.label.split("+")) for clip in clips[::20]]
    assert np.mean([in_order(joints, labels) for joints, labels in some]) > 0.95
    assert not any(in_order(joints, labels[::-1]) or happens(joints, labels[::-1]) for joints, labels in some)
    joints, labels = some[0]
    assert not happens(joints[: len(joints) // 2], labels)  # half of it is not both


def test_counts_are_those_of_the_captions():
    judged = list(order_check.real_prompts(240, 3407))
    counts = [prompt.judge(joints)[0] for prompt, joints in judged if prompt.group == "count"]
    assert len(counts) >= 10 and np.mean(counts) > 0.95


def test_the_prompts_are_of_the_kinds_they_stand_for():
    prompts = order_check.prompts()
    assert {prompt.group for prompt in prompts} == set(order_check.GROUPS)
    assert len({prompt.text for prompt in prompts}) == len(prompts)
    for prompt in prompts:
        if prompt.group != "count":
            kind = sequences.kind_of(prompt.labels)
            assert kind == (prompt.group if prompt.group in ("order", "pair") else "seen")
            assert not {prompt.group} & {"after", "before"} or prompt.group in prompt.text.split()


def test_the_table_counts_reversed_motions(clips):
    clip = next(
        clip for clip in clips if clip.split == "test" and sequences.kind_of(clip.label.split("+")) == "order"
    )
    labels = tuple(clip.label.split("+"))
    right, wrong = (order_check.Prompt("order", "", x) for x in (labels, labels[::-1]))
    _, rows = order_check.table([(p, *p.judge(clip.joints)) for p in (right, right, wrong)])
    assert rows["order"] == {"n": 3, "passed": 2, "share": 2 / 3, "wilson": [*wilson(2, 3)], "reversed": 1}
    np.testing.assert_allclose(wilson(2, 3), (0.2077, 0.9385), atol=1e-4)  # by the formula


def test_no_two_splits_share_frames():
    splits = {"train": {}, "test": {}}
    for clip in demo_clips(300):
        if clip.split in splits:
            splits[clip.split][clip.name] = pose_distances(clip.joints, SMPL22)
    assert len(splits["test"]) > 30 and not shared_frames(splits["test"], splits["train"])
