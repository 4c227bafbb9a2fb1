"""The features against real HumanML3D, MARDM's recorded numbers, and laws that hold for any motion."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from motion.rotations import shortest_arc
from motion.skeletons import KIT21, SMPL22, mirror_joints
from tests.bodies import rest_pose
from utils.errors import BadInput
from utils.motion_process import (
    FACING_RULES,
    essential_dim,
    feature_groups,
    headings,
    joint_steps,
    joints_to_features,
    place,
    recover_from_ric,
    recover_full,
    recover_root,
    root_path,
)

BOTH = pytest.mark.parametrize("skeleton", [SMPL22, KIT21], ids=lambda s: s.name)


def standing(skeleton, bone=0.25):
    """Joints [J,3] of a standing body that faces +Z, bones of one length, shoulders wider than the hips."""
    pose = rest_pose(skeleton, bone)
    for side, joints in ((1, skeleton.facing[1::2]), (-1, skeleton.facing[0::2])):
        for joint, width in zip(joints, (0.5, 1.5)):
            pose[joint, 0] = side * width * bone
    return pose / skeleton.unit_m


def walk(skeleton, seed=0, frames=60, turn=0.0, lying=False, wobble=0.01):
    """Joints [T,J,3] of a body that wanders and turns by `turn` in all, in the skeleton's unit."""
    rng = np.random.default_rng(seed)
    pose = np.repeat(standing(skeleton)[None], frames, axis=0)
    pose += np.cumsum(rng.normal(0, wobble, pose.shape), axis=0) / skeleton.unit_m
    if lying:
        pose = pose @ Rotation.from_euler("x", -90, degrees=True).as_matrix().T
    heading = np.linspace(0, turn, frames) + np.cumsum(rng.normal(0, 0.02, frames))
    turned = np.einsum("tij,tkj->tki", Rotation.from_rotvec(heading[:, None] * [0, 1, 0]).as_matrix(), pose)
    path = np.cumsum(rng.normal(0, 0.03, (frames, 1, 3)) * [1, 0.1, 1], axis=0)
    return turned + path / skeleton.unit_m


def recovered(features, skeleton):
    return recover_from_ric(torch.from_numpy(features), len(skeleton)).numpy()


@pytest.fixture(scope="module")
def published(data_dir):
    """The feature rows of `real_walk`."""
    return np.load(data_dir / "humanml3d_samples/new_joint_vecs/012314.npy")


def test_real_humanml3d_clip_gives_its_published_rows(real_walk, published):
    rows = joints_to_features(real_walk, SMPL22)
    error = np.abs(rows - published[: len(rows)])
    groups = feature_groups(22)
    assert rows.shape == (169, 263) and rows.dtype == np.float32
    # the published clip had one frame more, which the filter of the heading sees towards the end
    assert error[:100, :67].max() < 1e-4 and error[:100, groups["velocities"]].max() < 1e-4
    assert error[:100, groups["rotations"]].max() < 1e-4
    assert error[:, :67].max() < 1e-2 and error[:, groups["velocities"]].max() < 1e-2
    assert np.array_equal(rows[:, groups["contacts"]], published[:169, groups["contacts"]])
    assert 0 < rows[:, groups["contacts"]].mean() < 1


def test_full_rows_come_back_from_the_essential_columns(published):
    full = recover_full(published[:, :67], SMPL22)
    assert np.array_equal(recover_full(published, SMPL22), full)  # other columns are not read
    error = np.abs(full - published)
    groups = feature_groups(22)
    assert error[:, :67].max() == 0 and error[:, groups["contacts"]].max() == 0
    assert error[:, groups["rotations"]].max() < 1e-5
    assert error[:-1, groups["velocities"]].max() < 1e-5
    assert error[-1, groups["velocities"]].max() < 2e-2  # the frame after the last is not known


def test_recovery_matches_the_recorded_numbers(goldens):
    recorded = goldens("recover.pt")
    t2m, kit, batched = recorded["t2m"], recorded["kit"], recorded["batched"]
    for dtype in (torch.float32, torch.float64):
        quaternion, position = recover_root(t2m["motion67"].to(dtype))
        assert quaternion.dtype == dtype
        torch.testing.assert_close(quaternion, t2m["root_quaternion"].to(dtype), atol=1e-5, rtol=0)
        torch.testing.assert_close(position, t2m["root_position"].to(dtype), atol=1e-5, rtol=0)
        for rows, joints, count in (
            (t2m["motion67"], t2m["joints22"], 22),
            (kit["motion64"], kit["joints21"], 21),
            (batched["motion67"], batched["joints22"], 22),
        ):
            torch.testing.assert_close(
                recover_from_ric(rows.to(dtype), count), joints.to(dtype), atol=1e-5, rtol=0
            )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    frames=st.integers(2, 196),
    turn=st.floats(-15, 15),
    start=st.floats(-np.pi, np.pi),
    lying=st.booleans(),
    skeleton=st.sampled_from([SMPL22, KIT21]),
)
def test_joints_survive_the_round_trip(seed, frames, turn, start, lying, skeleton):
    joints = walk(skeleton, seed, frames, turn, lying) @ Rotation.from_euler("y", start).as_matrix().T
    features = joints_to_features(joints, skeleton)
    back = recovered(features[:, : essential_dim(skeleton)], skeleton)
    assert np.abs(back - place(joints, skeleton)[:-1]).max() * skeleton.unit_m < 1e-4


@BOTH
@pytest.mark.parametrize("start", [180.0, 90.0, 0.0])
@pytest.mark.parametrize("lying", [False, True])
def test_facing_away_turning_twice_round_lying_down(skeleton, start, lying):
    """No NaN, no jump: the heading runs on where it passes from pi to -pi."""
    joints = walk(skeleton, frames=160, turn=4 * np.pi, lying=lying, wobble=0.001)
    joints = joints @ Rotation.from_euler("y", start, degrees=True).as_matrix().T
    features = joints_to_features(joints, skeleton)
    full = recover_full(features[:, : essential_dim(skeleton)], skeleton)
    assert np.isfinite(features).all() and features.shape == full.shape
    assert np.abs(features[1:, 0]).max() < 0.3  # half a turn step; a jump would be pi / 2
    assert np.abs(full - features)[:-1].max() < 2e-3 / skeleton.unit_m


def test_exactly_backwards_and_upside_down_are_finite():
    pose = standing(SMPL22)
    for turn in ("y", "x", "z"):
        joints = np.repeat(
            (pose @ Rotation.from_euler(turn, 180, degrees=True).as_matrix().T)[None], 4, axis=0
        )
        features = joints_to_features(joints, SMPL22)
        assert np.isfinite(features).all()
        assert np.abs(recovered(features, SMPL22) - place(joints, SMPL22)[:-1]).max() < 1e-6


@BOTH
def test_paths_and_steps_are_those_of_the_recovered_joints(skeleton):
    joints = walk(skeleton, frames=50, turn=2.0)
    rows = torch.from_numpy(joints_to_features(joints, skeleton)).double()
    world, path = recover_from_ric(rows, len(skeleton)), root_path(rows)
    assert torch.allclose(path[:, :2], world[:, 0, [0, 2]])
    turned = Rotation.from_rotvec(-path[1:, 2:].numpy() * [0, 1, 0]).as_matrix()
    expected = np.einsum("tij,tkj->tki", turned, np.diff(world.numpy(), axis=0))
    steps = joint_steps(rows, len(skeleton))
    assert np.allclose(steps, expected, atol=1e-6 / skeleton.unit_m)
    assert torch.equal(joint_steps(rows[20:], len(skeleton)), steps[20:])  # however the path began


@BOTH
def test_place_is_floor_origin_front_and_undoes_any_pose_in_the_world(skeleton):
    joints = walk(skeleton, frames=20)
    placed = place(joints, skeleton)
    assert placed[..., 1].min() == 0 and np.allclose(placed[0, 0, [0, 2]], 0)
    right, left = skeleton.facing[2], skeleton.facing[3]
    assert placed[0, left, 0] > placed[0, right, 0]  # left is +X when the front is +Z
    moved = joints @ Rotation.from_euler("y", 2.5).as_matrix().T + [300.0, -20.0, 7.0]
    assert np.allclose(place(moved, skeleton), placed, atol=1e-9 / skeleton.unit_m)


def test_a_straight_walk_has_the_rows_that_the_formulas_say():
    """1 m/s along +Z at 20 fps after facing +X: no turn, 5 cm forward a frame, both feet moving."""
    frames = np.arange(30)[:, None, None] * [0.0, 0.0, 0.05]
    joints = (standing(SMPL22) + frames) @ Rotation.from_euler("y", 90, degrees=True).as_matrix().T
    rows, groups = joints_to_features(joints, SMPL22), feature_groups(22)
    assert np.allclose(rows[:, 0], 0, atol=1e-7) and np.allclose(rows[:, 1:3], [0, 0.05], atol=1e-6)
    assert np.allclose(rows[:, 3], -standing(SMPL22)[:, 1].min(), atol=1e-6)
    assert np.allclose(rows[:, groups["velocities"]].reshape(-1, 22, 3), [0, 0, 0.05], atol=1e-6)
    assert (rows[:, groups["contacts"]] == 0).all()  # 0.05^2 = 0.0025 > 0.002
    still = joints_to_features(np.repeat(joints[:1], 5, axis=0), SMPL22)
    assert (still[:, groups["contacts"]] == 1).all()


def test_turning_left_is_half_the_angle_with_a_minus():
    turn = np.linspace(0, 3.0, 301)  # 0.01 rad a frame to the left (about +Y)
    joints = np.stack([standing(SMPL22) @ Rotation.from_euler("y", a).as_matrix().T for a in turn])
    rows = joints_to_features(joints, SMPL22)
    assert np.allclose(rows[100:200, 0], -0.005, atol=1e-4)


def test_the_rest_pose_has_no_rotation():
    rows = joints_to_features(np.repeat(standing(SMPL22)[None], 3, axis=0), SMPL22)
    straight = [1, 2, 3, 6, 9, 12]  # these bones of the pose point along their rest directions
    rotations = rows[:, feature_groups(22)["rotations"]].reshape(2, 21, 6)[:, [j - 1 for j in straight]]
    assert np.allclose(rotations, [1, 0, 0, 0, 1, 0], atol=1e-6)


@BOTH
def test_mirror_swaps_sides_and_is_its_own_inverse(skeleton):
    joints = place(walk(skeleton, frames=40, turn=2.0), skeleton)
    mirrored = mirror_joints(joints, skeleton)
    left, right = skeleton.hips
    assert np.array_equal(mirrored[:, left], joints[:, right] * [-1, 1, 1])
    assert np.array_equal(mirror_joints(mirrored, skeleton), joints)
    rows, twin = joints_to_features(joints, skeleton), joints_to_features(mirrored, skeleton)
    assert np.allclose(twin[:, 0], -rows[:, 0], atol=1e-6) and np.allclose(twin[:, 3], rows[:, 3])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=6, max_size=6))
def test_shortest_arc_turns_u_into_v_and_no_further(numbers):
    u, v = np.array(numbers[:3]), np.array(numbers[3:])
    if min(np.linalg.norm(u), np.linalg.norm(v)) < 1e-3:
        return
    u, v = u / np.linalg.norm(u), v / np.linalg.norm(v)
    for target in (v, -u, u):
        arc = shortest_arc(u, target)
        assert np.allclose(arc.apply(u), target, atol=1e-6)
        assert arc.magnitude()[0] == pytest.approx(
            np.arctan2(np.linalg.norm(np.cross(u, target)), u @ target), abs=1e-6
        )


def test_with_one_sign_the_hips_steady_the_heading():
    """A body that turns with hips and shoulders alike; noise on the shoulders reaches the heading less."""
    turn, noise = np.linspace(0, 2.0, 200), np.random.default_rng(0).normal(0, 0.1, (200, 2, 3))
    pose = standing(SMPL22)
    pose[list(SMPL22.shoulders)] *= [0.5, 1, 1]  # 0.375 m wide, hips 0.25 m
    joints = np.stack([pose @ Rotation.from_euler("y", a).as_matrix().T for a in turn])
    inner = slice(60, -60)  # the smoothing bends the ends
    for rule in FACING_RULES:
        assert np.allclose(headings(joints, SMPL22, rule)[inner], turn[inner], atol=1e-3)
    joints[:, list(SMPL22.shoulders)] += noise
    spread = {rule: np.std((headings(joints, SMPL22, rule) - turn)[inner]) for rule in FACING_RULES}
    assert spread["one_sign"] < 0.5 * spread["published"]
    published = joints_to_features(joints, SMPL22)
    assert np.array_equal(published, joints_to_features(joints, SMPL22, "published"))
    assert not np.allclose(published, joints_to_features(joints, SMPL22, "one_sign"), atol=1e-3)


def test_a_body_without_shoulders_in_line_still_has_a_heading():
    joints = np.zeros((5, 22, 3))
    assert np.array_equal(headings(place(joints, SMPL22), SMPL22), np.zeros(5))
    assert np.isfinite(joints_to_features(joints, SMPL22)).all()


@pytest.mark.parametrize(
    "joints", [np.zeros((5, 21, 3)), np.zeros((1, 22, 3)), np.full((5, 22, 3), np.nan), np.zeros((5, 66))]
)
def test_wrong_joints_are_refused(joints):
    with pytest.raises(BadInput):
        joints_to_features(joints, SMPL22)


def test_wrong_rows_are_refused():
    with pytest.raises(BadInput, match="67"):
        recover_full(np.zeros((10, 64)), SMPL22)
