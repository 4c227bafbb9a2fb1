"""Holding standing feet: what stands stays, what swings or glides is left alone, bones keep their lengths."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from motion.feet import FLOOR, STRETCH, fix_feet, standing
from motion.skeletons import KIT21, SMPL22
from tests.bodies import packed_clips, rest_pose
from utils.metrics import foot_skate

FPS = 20.0


@pytest.fixture(scope="module")
def clips(data_dir):
    return list(packed_clips(data_dir / "bandai_namco", slice(5, 3066, 120)).values())


def sliding(clips, seed=0):
    """The same clips, drifting over the floor by some centimetres a frame."""
    rng = np.random.default_rng(seed)
    drifts = [np.cumsum(rng.normal(0, 0.03, (len(clip), 1, 3)) * [1, 0, 1], axis=0) for clip in clips]
    return [clip + gaussian_filter1d(drift, 2, axis=0) for clip, drift in zip(clips, drifts)]


def lengths(joints):
    return np.linalg.norm(joints[:, 1:] - joints[:, list(SMPL22.parents[1:])], axis=-1)


def test_feet_slide_less_and_nothing_else_changes(clips):
    before = sliding(clips)
    after = [fix_feet(clip, FPS, SMPL22) for clip in before]
    skate = [foot_skate(some, SMPL22.feet, FPS) for some in (clips, before, after)]
    assert skate[1] > 1.5 * skate[0] and skate[2] < skate[0] + 0.35 * (skate[1] - skate[0])
    legs = [joint for foot in SMPL22.feet for joint in (foot, SMPL22.parents[foot])]
    others = [joint for joint in range(22) if joint not in legs]
    for old, new in zip(before, after):
        assert np.array_equal(old[:, others], new[:, others])
        assert np.abs(lengths(old) - lengths(new)).max() < 1e-9
        assert np.abs((new - old)[:, list(SMPL22.feet), 1]).max() < 1e-9  # heights stay
        assert np.abs(np.diff(new - old, axis=0)).max() < 0.15  # no jump where a foot is let go


def bends(joints, hip):
    """Normals of the planes in which a leg bends [T,3]."""
    knee, ankle = hip + 3, hip + 6
    return np.cross(joints[:, knee] - joints[:, hip], joints[:, ankle] - joints[:, knee])


def test_no_knee_flips(clips):
    """Also where it was nearly straight: an earlier method flipped 605 of 4,714 legs."""
    for old in sliding(clips):
        new = fix_feet(old, FPS, SMPL22)
        for hip in SMPL22.hips:
            assert ((bends(old, hip) * bends(new, hip)).sum(axis=-1) >= 0).all()


def test_a_straight_knee_bends_towards_the_toes():
    legs = np.tile(rest_pose(SMPL22, 0.2), (10, 1, 1))
    legs[:, [7, 8, 10, 11], 2] += 0.01 * np.arange(10)[:, None]  # slides ahead of a straight leg ...
    legs[:, 1:3, 1] -= 0.002  # ... whose hip is lower than the leg is long
    legs[:, 4:6] = (legs[:, 1:3] + legs[:, 7:9]) / 2
    fixed = fix_feet(legs, FPS, SMPL22)
    assert np.abs(lengths(fixed) - lengths(legs)).max() < 1e-9
    ahead = fixed[:, 4:6, 2] - (fixed[:, 1:3, 2] + fixed[:, 7:9, 2]) / 2
    assert (ahead > -1e-9).all() and (ahead.max(axis=0) > 0.02).all()


def test_a_gliding_body_is_left_alone(clips):
    for speed in (0.5, 0.85):  # metres a second
        glide = np.repeat(clips[3][:1], 60, axis=0)
        glide[..., 2] += speed / FPS * np.arange(60)[:, None]
        assert np.abs(fix_feet(glide, FPS, SMPL22) - glide).max() < 1e-9


def test_the_legs_of_kit_bend_at_the_knee():
    walk = np.tile(rest_pose(KIT21, 250), (20, 1, 1))
    walk[:, [12, 17], 2] += 60  # bent knees, in millimetres
    walk[:, [13, 14, 15, 18, 19, 20], 2] += 8.0 * np.arange(20)[:, None]
    fixed = fix_feet(walk, 12.5, KIT21)
    assert np.ptp(fixed[2:-2, list(KIT21.feet), 2], axis=0).max() < 1e-6
    assert np.abs((fixed - walk)[:, [12, 17]]).max() > 1
    for part in ([13, 14, 15], [18, 19, 20]):  # a foot is moved as a whole
        assert np.ptp((fixed - walk)[:, part], axis=1).max() < 1e-9


def test_a_standing_toe_does_not_move_at_all_if_the_leg_is_bent(clips):
    clip = 0.9 * clips[3] + 0.1 * sliding(clips)[3]  # a few centimetres
    clip[:, [0, 1, 2]] -= [0, 0.05, 0]  # hips lower than the legs are long, so that every place is in reach
    floor = clip[:, list(SMPL22.feet), 1].min()
    toe = SMPL22.feet[1]
    stretches = standing(clip[:, toe], clip[:, 1], floor, FPS)
    fixed = fix_feet(clip, FPS, SMPL22)
    held = [np.ptp(fixed[a:b, toe][:, [0, 2]], axis=0).max() for a, b in stretches]
    moved = [np.ptp(clip[a:b, toe][:, [0, 2]], axis=0).max() for a, b in stretches]
    assert stretches and max(held) < 1e-9 and max(moved) > 0.02


def test_pinned_frames_stay_and_feet_stand_where_they_have_them(clips):
    held = 0
    for joints in sliding(clips):
        pinned = np.arange(len(joints)) % 60 == 30
        fixed = fix_feet(joints, 20, SMPL22, pinned)
        assert np.abs(fixed - joints)[pinned].max() < 1e-9
        floor = np.percentile(joints[:, list(SMPL22.feet), 1].min(axis=1), FLOOR)
        for start, end in standing(joints[:, 10], joints[:, 1], floor, 20):
            inside = np.flatnonzero(pinned[start:end])
            if len(inside) == 1:
                apart = (fixed[start:end, 10] - joints[start + inside[0], 10])[:, [0, 2]]
                held += np.median(np.linalg.norm(apart, axis=-1)) < 1e-6
    assert held > 3


def test_a_foot_is_let_go_little_by_little(clips):
    """It stands, sliding 2 cm a frame, and then swings up: its correction fades in equal steps."""
    clip = np.repeat(clips[3][:1], 40, axis=0) - [0, 0.05, 0]
    clip[:, list(SMPL22.feet), 1] += 0.05
    clip[:, list(SMPL22.feet), 2] += np.minimum(np.arange(40), 15)[:, None] * 0.02
    clip[16:, list(SMPL22.feet), 1] += 0.2
    clip[0, SMPL22.feet[2], 1] = clip[1, SMPL22.feet[2], 1]
    moved = (fix_feet(clip, FPS, SMPL22) - clip)[:, SMPL22.feet[1], 2]
    assert moved[15] < -0.1 and abs(moved[21:]).max() < 1e-9
    assert np.diff(moved[15:21]) == pytest.approx(np.full(5, -moved[15] / 5), abs=0.01)


def test_a_body_in_the_air_is_left_alone(clips):
    flying = clips[3] + np.linspace(0, 30, len(clips[3]))[:, None, None] * [0, 1, 0]
    fixed = fix_feet(flying, FPS, SMPL22)
    assert np.abs(fixed - flying)[3:].max() < 1e-9


def test_one_frame_below_the_floor_lets_no_other_foot_go(clips):
    """The floor is not the lowest joint of the clip: a foot that sinks for a frame is no reason to slide."""
    slid = sliding(clips)[3]
    sunk = slid.copy()
    sunk[len(sunk) // 2] -= [0, 0.07, 0]
    moved = np.abs(fix_feet(slid, FPS, SMPL22) - slid).max(axis=(1, 2)) > 1e-3
    still_moved = np.abs(fix_feet(sunk, FPS, SMPL22) - sunk).max(axis=(1, 2)) > 1e-3
    assert moved.sum() > len(slid) / 4 and still_moved.sum() > 0.8 * moved.sum()


def test_a_still_body_stays_and_the_input_is_not_touched(clips):
    still = np.repeat(clips[3][:1], 30, axis=0)
    kept = still.copy()
    assert np.abs(fix_feet(still, FPS, SMPL22) - still).max() < 1e-9
    assert np.array_equal(still, kept)
    assert fix_feet(still[:1], FPS, SMPL22).shape == (1, 22, 3)


def test_a_foot_out_of_reach_is_held_as_far_as_the_leg_goes(clips):
    walk = clips[3].copy()
    toes = [SMPL22.feet[0], SMPL22.feet[1]]
    walk[:, toes] = (
        np.repeat(walk[:1, toes], len(walk), axis=0) + [0, 0, 1] * np.arange(len(walk))[:, None, None] * 0.04
    )
    fixed = fix_feet(walk, FPS, SMPL22)
    assert np.isfinite(fixed).all() and np.abs(lengths(fixed) - lengths(walk)).max() < 1e-9
    assert np.ptp(fixed[:, toes, 2], axis=0).max() < 0.6 * np.ptp(walk[:, toes, 2], axis=0).min()
    leg = lengths(fixed)[:, [3, 6]].sum(axis=1)  # thigh and shin
    stretched = np.linalg.norm(fixed[:, 7] - fixed[:, 1], axis=-1) / leg
    assert stretched.max() < 1 and (np.abs(stretched - STRETCH) < 1e-6).sum() > 10
