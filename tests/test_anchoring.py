"""Anchoring edited rows in the source's world: closed forms; kept frames stand where they stood."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from models.LengthEstimator import MAX_TOKENS
from motion.bvh.rigs import bone_lengths
from motion.feet import stretches
from motion.skeletons import SMPL22
from tests.bodies import rest_pose
from utils.generation.anchoring import _bend, align, anchor, on_bones
from utils.generation.windows import windows
from utils.motion_process import recover_from_ric


def walk(frames, step=0.05, turn=0.0):
    """Rows of a body that stands on its path: step along its heading and turn (radians) each frame."""
    rows = np.zeros((frames, 67))
    rows[:, 0], rows[:, 2], rows[:, 3] = -turn / 2, step, 1.0
    rows[:, 4:] = np.random.default_rng(0).standard_normal(63) * 0.3 + 1
    return rows


def joints(rows):
    return recover_from_ric(torch.from_numpy(rows), 22).numpy()


def section(frames, first, last):
    kept = np.ones(frames, dtype=bool)
    kept[first:last] = False
    return kept


@given(st.lists(st.booleans(), max_size=30))
def test_stretches(mask):
    spans = stretches(mask)
    again = np.zeros(len(mask), dtype=bool)
    for first, last in spans:
        again[first:last] = True
    assert again.tolist() == mask and all(a[1] < b[0] for a, b in zip(spans, spans[1:]))


@given(st.integers(0, 30), st.integers(1, 40), st.floats(-0.1, 0.1), st.floats(0, 0.2))
def test_kept_frames_stand_where_they_stood(first, length, turn, step):
    source, drawn = walk(60, turn=0.02), walk(60, step, turn)
    drawn[:, 3:] += 0.05
    kept = section(60, first, first + length)
    rows, bends = anchor(drawn, source, kept, SMPL22)
    assert np.array_equal(rows[kept], source[kept])
    world = joints(source) @ Rotation.from_rotvec([0, 1.2, 0]).as_matrix().T + [3, 0.4, -2]
    placed = align(joints(rows), world, kept)
    assert np.abs(placed - world)[kept].max() < 1e-9
    assert len(bends) == (first > 0 and first + length < 60)


def test_a_pose_leaves_the_kept_frames_and_comes_back_to_them_with_their_speed():
    source, drawn = walk(60), walk(60)
    up = [3, *range(5, 67, 3)]
    source[:, up] += 0.02 * (np.abs(np.arange(60) - 29.5) - 10.5)[:, None]  # sinks and rises, 2 cm a frame
    height = anchor(drawn, source, section(60, 20, 40), SMPL22)[0][:, 3]
    assert np.allclose(np.diff(height)[[18, 19, 39, 40]], [-0.02, -0.0168, 0.0168, 0.02], atol=1e-4)


def test_feet_keep_their_height_where_legs_that_spread_are_blended():
    """Interpolated legs would be too short; at their own length they would reach below the floor."""
    source = rest_pose(SMPL22, 0.2)
    wide = source.copy()
    for side, (hip, *leg) in ((1, (1, 4, 7, 10)), (-1, (2, 5, 8, 11))):
        wide[leg] = source[hip] + Rotation.from_rotvec([0, 0, side]).apply(source[leg] - source[hip])
    bodies = (pose - [0, pose[list(SMPL22.feet), 1].min(), 0] for pose in (source, wide))
    source, drawn = (np.tile(np.r_[0, 0, 0, body[0, 1], body[1:].ravel()], (60, 1)) for body in bodies)
    rows, _ = anchor(drawn, source, section(60, 10, 50), SMPL22)
    assert np.allclose(joints(rows)[:, list(SMPL22.feet), 1].min(axis=1), 0, atol=1e-9)


def test_a_section_that_stands_is_moved_over_all_its_frames():
    """The source goes 2 m straight on, the drawn part stands: it is moved by 2 m, without turn or jump."""
    rows, (bend,) = anchor(walk(60, step=0), walk(60), section(60, 10, 50), SMPL22)
    assert bend.metres == pytest.approx(2, abs=0.6) and bend.degrees == pytest.approx(0, abs=1e-6)
    steps = np.diff(joints(rows)[:, 0, 2])
    assert steps.min() > 0.01 and steps.max() < 0.11 and np.abs(np.diff(steps)).max() < 0.02
    assert np.abs(joints(rows)[:, 0, 0]).max() < 1e-9


def test_a_drawn_circle_is_no_correction():
    """A whole turn ends with the heading that it began with, which is left alone."""
    source, drawn = walk(80, step=0), walk(80, step=0, turn=0)
    drawn[20:60, 0] = -np.pi / 40
    rows, (bend,) = anchor(drawn, source, section(80, 20, 60), SMPL22)
    assert bend.degrees < 30  # what the smooth ends take away
    assert np.abs(np.diff(joints(rows), axis=0)).max() < 0.8


def test_a_section_at_an_end_goes_where_it_was_drawn():
    source, drawn = walk(40), walk(40, step=0.1)
    for kept in (section(40, 0, 20), section(40, 20, 40)):
        rows, bends = anchor(drawn, source, kept, SMPL22)
        assert not bends and np.allclose(rows[~kept][8:12, 2], 0.1, atol=0.05)
    assert np.allclose(anchor(drawn, source, section(40, 0, 40), SMPL22)[0], drawn)


def test_an_arm_that_swings_to_the_other_side_keeps_its_length():
    """Kept frames hold the left arm down, drawn ones up, on one body: so do the frames between."""
    down = rest_pose(SMPL22, 0.2) + [0, 1, 0]
    up, (elbow, wrist) = down.copy(), (18, 20)
    up[[elbow, wrist]] = down[16] + Rotation.from_rotvec([0.3, 0, 2.9]).apply(down[[elbow, wrist]] - down[16])
    source, drawn = (np.tile(np.append([0, 0, 0, 1.0], pose[1:]), (60, 1)) for pose in (down, up))
    rows, _ = anchor(drawn, source, section(60, 10, 50), SMPL22)
    bones = joints(rows)[:, 1:] - joints(rows)[:, list(SMPL22.parents[1:])]
    assert np.allclose(np.linalg.norm(bones, axis=-1), 0.2)
    lowest = joints(rows)[:, list(SMPL22.feet), 1].min(axis=1)
    assert np.allclose(lowest, lowest[0]) and np.allclose(rows[30], drawn[30])


@given(st.floats(-3, 3), st.floats(-5, 5), st.floats(-5, 5), st.floats(-1, 1))
def test_align_undoes_a_place(yaw, x, z, y):
    points = np.random.default_rng(1).standard_normal((5, 22, 3))
    world = points @ Rotation.from_rotvec([0, yaw, 0]).as_matrix().T + [x, y, z]
    frames = np.array([True, False, True, False, False])
    assert np.abs(align(points, world, frames) - world).max() < 1e-9


def test_bones_there_and_back():
    source = walk(12, turn=0.1)
    lengths = bone_lengths(joints(source), SMPL22)
    other = on_bones(source, lengths * 0.8)
    assert np.allclose(bone_lengths(joints(other), SMPL22), lengths * 0.8)
    assert np.allclose(other[:, 1:4], source[:, 1:4] * 0.8) and np.array_equal(other[:, 0], source[:, 0])
    assert np.abs(on_bones(other, lengths) - source).max() < 1e-9


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 120)), min_size=1, max_size=5))
def test_windows_draw_everything_once_and_see_nothing_that_is_still_hidden(parts):
    hidden = torch.cat(
        [torch.tensor([False] * gap + [True] * n) for gap, n in parts] + [torch.zeros(3).bool()]
    )
    todo = hidden.clone()
    for window, mask in windows(hidden):
        assert window.stop - window.start == len(mask) <= MAX_TOKENS
        assert torch.equal(todo[window], mask)
        todo[window] &= ~mask
    assert not todo.any()


def test_a_path_is_bent_alike_in_metres_and_in_millimetres():
    """Also where a body that stands still takes a small part of the correction."""
    source, rows = walk(20, step=0.06, turn=0.02), walk(20)
    rows[:10, 2] = 0
    scale = np.ones(67)
    scale[1:] = 1000
    large = rows * scale
    moved = _bend(rows, source, 1.0), _bend(large, source * scale, 0.001)
    assert np.allclose(large, rows * scale) and np.abs(rows[:10, 2]).max() > 1e-3
    assert moved[0] == pytest.approx(moved[1])
