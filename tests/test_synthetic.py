"""The demo set keeps the laws of a body, its captions say what it does, and the prompt check can tell."""

from collections import Counter
from itertools import product

import numpy as np
import pytest

from experiments import prompt_check
from motion.skeletons import SMPL22, mirror_joints
from motion.synthetic.body import FPS
from motion.synthetic.clips import ACTIONS, LABELS, demo_clip, demo_clips
from motion.synthetic.geometry_check import MIRROR, describe, shows, split_label, swapped
from motion.synthetic.text import PEOPLE, SENTENCES, TIMES, tokens

PARENTS = np.array(SMPL22.parents[1:])
ALL = 1500
FORWARD = ("walk", "walk_slow", "walk_fast", "walk_curve", "run", "crouch")


@pytest.fixture(scope="module")
def everything():
    return list(demo_clips(ALL))


@pytest.fixture(scope="module")
def clips(everything):
    """Three of each label of a single action."""
    some = [clip for clip in everything[: 6 * len(LABELS)] if "+" not in clip.label]
    assert Counter(clip.label for clip in some) == dict.fromkeys(LABELS, 3)
    return some


def named(clips, *names):
    found = [clip for clip in clips if split_label(clip.label)[0] in names]
    assert {split_label(clip.label)[0] for clip in found} == set(names)
    return found


def ahead_and_left(joints):
    """Horizontal unit vectors [T,3] of the hips' facing and of its left."""
    left = (joints[:, 1] - joints[:, 2]) * [1, 0, 1]
    left /= np.linalg.norm(left, axis=1, keepdims=True)
    return np.cross(left, [0, 1, 0]), left


def test_bones_keep_their_length_in_every_clip(everything):
    lengths = [np.linalg.norm(c.joints[:, 1:] - c.joints[:, PARENTS], axis=2) for c in everything]
    assert np.ptp(np.concatenate(lengths), axis=0).max() < 1e-9


def test_a_clip_is_the_same_whatever_is_asked_beside_it(everything):
    for number in (36, 37):
        alone = demo_clip(number)
        np.testing.assert_array_equal(alone.joints, everything[number].joints)
        for field in ("captions", "split", "label"):
            assert getattr(alone, field) == getattr(everything[number], field)
    assert [demo_clip(i, seed=1).label for i in range(9)] != [clip.label for clip in everything[:9]]


def test_labels_and_splits_are_balanced(everything):
    splits = Counter(clip.split for clip in everything)
    assert splits["test"] >= 200 and abs(splits["train"] / ALL - 0.8) < 0.02
    assert abs(splits["val"] / ALL - 0.05) < 0.02
    for split, least in (("train", 12), ("val", 0), ("test", 2)):
        counted = Counter(clip.label for clip in everything if clip.split == split)
        assert all(counted[label] >= least for label in LABELS), split
    assert len({clip.name for clip in everything}) == ALL
    assert all(44 <= len(clip.joints) <= 199 for clip in everything)


def test_every_clip_starts_facing_z_at_the_origin(everything):
    for clip in everything:
        first = clip.joints[0]
        for left, right in (SMPL22.hips, SMPL22.shoulders):
            across = first[left] - first[right]
            assert across[0] > 0.1 and abs(across[2]) < 2e-3
        assert np.abs(first[0, [0, 2]]).max() < 0.4  # the seated start lies behind the feet


@pytest.mark.parametrize("toe, ankle", [(10, 7), (11, 8)])
def test_a_standing_foot_does_not_slide(everything, toe, ankle):
    for clip in everything:
        down = clip.joints[:, toe, 1] < 0.0155
        flat = down & (clip.joints[:, ankle, 1] < 0.0605)
        for joint, rests in ((toe, down), (ankle, flat)):
            both = rests[1:] & rests[:-1]
            slid = np.linalg.norm(np.diff(clip.joints[:, joint][:, [0, 2]], axis=0), axis=1)[both]
            assert slid.max(initial=0) < 1e-3, clip.label
        other_down = clip.joints[:, 21 - toe, 1] < 0.0155
        assert np.mean(down | other_down) > (0.3 if clip.label == "run" else 0.55), clip.label


def test_nobody_sinks_into_the_floor_or_pops(everything):
    for clip in everything:
        assert clip.joints[..., 1].min() > 0.01
        acceleration = np.linalg.norm(np.diff(clip.joints, n=2, axis=0), axis=2) * FPS**2
        assert acceleration.max() < 110, clip.label
        assert np.linalg.norm(np.diff(clip.joints, axis=0), axis=2).max() * FPS < 9, clip.label


def angle(joints, a, b, c):
    """Degrees at b between a and c, [T]."""
    u, v = joints[:, a] - joints[:, b], joints[:, c] - joints[:, b]
    cosine = np.sum(u * v, axis=1) / np.linalg.norm(u, axis=1) / np.linalg.norm(v, axis=1)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


@pytest.mark.parametrize("hip, knee, ankle, toe", [(1, 4, 7, 10), (2, 5, 8, 11)])
def test_knees_bend_forwards_and_legs_stay_in_their_limits(everything, hip, knee, ankle, toe):
    for clip in everything:
        joints = clip.joints
        _, left = ahead_and_left(joints)
        # ahead for a hanging leg, up for a raised one
        forward = np.cross(joints[:, ankle] - joints[:, hip], left)
        bulge = joints[:, knee] - (joints[:, hip] + joints[:, ankle]) / 2
        assert np.sum(forward * bulge, axis=1).min() > 0, clip.label
        assert angle(joints, hip, knee, ankle).min() > 50 and angle(joints, hip, knee, ankle).max() < 172
        assert angle(joints, knee, ankle, toe).min() > 30 and angle(joints, knee, ankle, toe).max() < 155


@pytest.mark.parametrize("shoulder, elbow, wrist, sign", [(16, 18, 20, 1), (17, 19, 21, -1)])
def test_arms_bend_and_stay_in_their_limits(clips, shoulder, elbow, wrist, sign):
    for clip in clips:
        bend = angle(clip.joints, shoulder, elbow, wrist)
        assert bend.min() > 30 and bend.max() < 176, clip.label
        ahead, left = ahead_and_left(clip.joints)
        upper = clip.joints[:, elbow] - clip.joints[:, shoulder]
        fore = clip.joints[:, wrist] - clip.joints[:, elbow]
        hanging = upper[:, 1] < -0.8 * 0.26
        assert np.all(np.sum((fore - upper * 0.268 / 0.26) * ahead, axis=1)[hanging] > -0.03), clip.label
        assert np.all(sign * np.sum(upper * left, axis=1) > -0.12), clip.label  # no arm through the chest


def test_legs_do_not_pass_through_each_other(everything):
    for clip in everything:
        feet = clip.joints[:, [7, 10]][:, :, None] - clip.joints[:, [8, 11]][:, None]
        assert np.linalg.norm(feet, axis=-1).min() > 0.11, clip.label
        assert np.linalg.norm(clip.joints[:, 4] - clip.joints[:, 5], axis=1).min() > 0.11, clip.label


def test_a_walker_faces_where_it_goes(clips):
    for clip in named(clips, *FORWARD, "backward", "side"):
        ahead, left = ahead_and_left(clip.joints)
        window = 10  # a stride sways: judged over half a second
        step = (clip.joints[window:, 0] - clip.joints[:-window, 0]) * [1, 0, 1]
        pace = np.linalg.norm(step, axis=1)
        name, side = split_label(clip.label)
        way = {"backward": -ahead, "side": left if side == "left" else -left}.get(name, ahead)
        middle = way[window // 2 : window // 2 + len(step)]
        aligned = np.sum(step * middle, axis=1) / np.maximum(pace, 1e-9)
        assert aligned[pace > 0.2].min() > np.cos(np.radians(25)), clip.label


def test_arms_swing_against_the_legs(clips):
    for clip in named(clips, "walk", "walk_fast", "run"):
        ahead, _ = ahead_and_left(clip.joints)
        for ankle, wrist in ((7, 20), (8, 21)):
            limbs = clip.joints[:, [ankle, wrist]] - clip.joints[:, :1]
            foot, hand = np.einsum("tkj,tj->kt", limbs, ahead)
            assert np.corrcoef(foot, hand)[0, 1] < -0.6, clip.label


def test_clips_show_what_their_label_says_and_mirror_images_the_other_side(clips):
    for clip in clips:
        name, side = split_label(clip.label)
        other = mirror_joints(clip.joints, SMPL22)
        twin = f"{name}_{MIRROR[side]}" if side else clip.label
        assert shows(clip.label, describe(clip.joints)), clip.label
        assert shows(twin, describe(other)) and swapped(clip.label, describe(other)) == (side is not None)


def test_clips_of_other_actions_do_not_pass(clips):
    """Only a quick walk may pass as a walk."""
    moves = [(clip.label, describe(clip.joints)) for clip in clips]
    passing = {(own, asked) for own, m in moves for asked in LABELS if own != asked and shows(asked, m)}
    assert passing <= {("walk_fast", "walk")}


def test_predicates_forgive_noise(clips):
    rng = np.random.default_rng(0)
    shaken = [shows(c.label, describe(c.joints + rng.normal(0, 0.012, c.joints.shape))) for c in clips]
    assert np.mean(shaken) > 0.97


def test_describe_measures_a_sliding_turning_body():
    n, still = 60, demo_clip(0).joints[:1]
    gone = describe(still + np.linspace(0, 1, n)[:, None, None] * [0.5, 0, 2.0])
    assert (gone.ahead, gone.leftward) == pytest.approx((2.0, 0.5), abs=0.05)
    assert gone.away == pytest.approx(np.hypot(2, 0.5), abs=0.05) and gone.turn == pytest.approx(0, abs=1e-6)
    yaw = np.linspace(0, np.radians(300), n)  # past half a turn: unwrapped
    c, s, o = np.cos(yaw), np.sin(yaw), np.zeros(n)
    spin = np.array([[c, o, s], [o, o + 1, o], [-s, o, c]]).transpose(2, 0, 1)
    assert describe(np.einsum("tij,kj->tki", spin, still[0])).turn == pytest.approx(300, abs=15)


def test_captions_name_the_side_and_nothing_else(everything):
    for clip in everything:
        parts = clip.label.split("+")
        assert 3 <= len(clip.captions) == len(set(clip.captions)) <= (6 if len(parts) > 1 else 4)
        sides = {split_label(part)[1] for part in parts} - {None}
        for caption in clip.captions:
            said = {word.strip(",") for word in caption.split()} & set(MIRROR)
            assert said == sides, caption
            assert caption == " ".join(caption.split()) and "#" not in caption and "{" not in caption


def test_every_sentence_can_be_written_as_tokens():
    assert set(SENTENCES) == set(ACTIONS)
    holes = product(PEOPLE, ("left", "right"), ("", "slowly", "quickly"), TIMES.values())
    for (who, his), side, how, times in holes:
        for sentence in (s for sentences in SENTENCES.values() for s in sentences):
            tokens(sentence.format(who=who, his=his, side=side, how=how, times=times))


def test_prompt_check_passes_real_motion_and_counts_swaps(everything):
    by_label = {clip.label.replace("+", "_"): clip.joints for clip in everything}
    real = prompt_check.check(lambda prompts: [by_label[prompt_check.PROMPTS[p]] for p in prompts], repeats=2)
    total = prompt_check.totals(real)
    assert (total["n"], total["passed"], total["swaps"]) == (40, 40, 0)
    wrong = prompt_check.check(
        lambda prompts: [mirror_joints(by_label[prompt_check.PROMPTS[p]], SMPL22) for p in prompts], 1
    )
    total = prompt_check.totals(wrong)
    assert total["swaps"] == total["sided"] == 12 and total["passed"] == 8


def test_a_caption_belongs_to_one_label(everything):
    owners = {}
    for clip in everything:
        for caption in clip.captions:
            assert owners.setdefault(caption, clip.label) == clip.label, caption
