"""Joints -> BVH -> joints through our own importer: real motion, any heading, both skeletons, loose bones."""

import warnings

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from test_motion_process import walk

from motion.bvh import read_bvh
from motion.bvh.rigs import bone_lengths, to_joints22
from motion.bvh.writer import rest_directions, skeleton_pose, write_bvh
from motion.rotations import best_fit, unit
from motion.skeletons import KIT21, SMPL22


def there_and_back(tmp_path, joints, fps=20.0):
    write_bvh(tmp_path / "motion.bvh", joints, fps)
    bvh = read_bvh(tmp_path / "motion.bvh")
    assert bvh.fps == fps and len(bvh) == len(joints)
    return to_joints22(bvh)


@pytest.fixture(scope="module")
def real(data_dir):
    return np.load(data_dir / "humanml3d_samples/new_joints/012314.npy").astype(np.float64)


@pytest.mark.parametrize("pose", ["as it is", "facing away", "lying", "upside down", "twice round"])
def test_real_motion_comes_back(tmp_path, real, pose):
    angles = np.zeros((len(real), 3))
    angles[:, 1] = {"facing away": 180, "twice round": np.linspace(0, 720, len(real))}.get(pose, 0)
    angles[:, 0] = {"lying": -90, "upside down": 180}.get(pose, 0)
    turns = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    joints = np.einsum("tij,tkj->tki", turns, real)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        back = there_and_back(tmp_path, joints)
    assert np.linalg.norm(back - joints, axis=-1).max() < 1e-4


def test_bones_are_constant_and_rotations_are_rotations(real):
    offsets, world = skeleton_pose(real, SMPL22)
    assert np.allclose(np.linalg.norm(offsets, axis=1), bone_lengths(real, SMPL22), atol=1e-6)
    assert np.allclose(world @ np.swapaxes(world, -1, -2), np.eye(3), atol=1e-9)
    assert np.allclose(np.linalg.det(world), 1)


def test_the_rest_pose_is_a_t_pose_on_the_floor(tmp_path, real):
    write_bvh(tmp_path / "motion.bvh", real, 20)
    bvh = read_bvh(tmp_path / "motion.bvh")
    places = np.zeros_like(bvh.offsets)
    for joint, parent in enumerate(bvh.parents):
        places[joint] = bvh.offsets[joint] + (places[parent] if parent >= 0 else 0)
    at = {name: place for name, place in zip(bvh.names, places)}
    assert at["Hips"][1] > 80 and abs(places[:, 1].min()) < 1e-4
    assert at["LeftHand"][0] > at["LeftForeArm"][0] > at["LeftArm"][0] > 10 > -10 > at["RightHand"][0]
    assert at["Head"][1] > at["Neck"][1] > at["Spine2"][1] > at["Hips"][1] > at["LeftLeg"][1]
    assert at["LeftToeBase"][2] > at["LeftFoot"][2] + 5
    assert (rest_directions(KIT21)[KIT21.joints.index("left_wrist")] == [1, 0, 0]).all()


def test_a_limb_turns_no_more_than_it_has_to(real):
    """Between neighbouring frames no bone spins about itself: its rotation follows from where it points."""
    _, world = skeleton_pose(real, SMPL22)
    steps = Rotation.from_matrix((np.swapaxes(world[:-1], -1, -2) @ world[1:]).reshape(-1, 3, 3)).magnitude()
    bones = unit(real[:, 1:] - real[:, list(SMPL22.parents[1:])])
    seen = np.arccos(
        np.clip((bones[1:] * bones[:-1]).sum(axis=-1), -1, 1)
    ).max()  # a serve: 66 degrees a frame
    assert steps.max() < 1.1 * seen


def test_features_of_any_length_of_bones_come_back_within_a_centimetre(tmp_path, real):
    """Networks do not keep bones constant: noise of a centimetre a joint costs about that."""
    joints = real + np.random.default_rng(0).normal(0, 0.005, real.shape)
    back = there_and_back(tmp_path, joints)
    assert np.linalg.norm(back - joints, axis=-1).mean() < 0.02


def test_kit_is_written_in_centimetres_with_its_own_names(tmp_path):
    joints = walk(KIT21, frames=40, turn=7.0, wobble=0.0)
    write_bvh(tmp_path / "kit.bvh", joints, 12.5, KIT21)
    bvh = read_bvh(tmp_path / "kit.bvh")
    order = [bvh.names.index(name) for name in KIT21.joints]
    assert bvh.fps == 12.5
    assert np.abs(bvh.global_positions()[:, order] * 10 - joints).max() < 0.1  # millimetres


def test_joints_on_one_line_keep_the_orientation_of_the_bone_before():
    prior = Rotation.from_euler("xyz", [0.3, 0.2, 0.1]).as_matrix()[None]
    rest = np.array([[0.0, 1, 0], [0, 2, 0]])
    assert np.allclose(best_fit(rest, np.einsum("tij,kj->tki", prior, rest), prior), prior, atol=1e-4)
    assert np.allclose(best_fit(rest * 0, rest[None] * 0, prior), prior, atol=1e-4)


def test_an_interrupted_write_leaves_nothing(tmp_path):
    with pytest.raises((ValueError, IndexError)):
        write_bvh(tmp_path / "bad.bvh", np.zeros((4, 3, 3)), 20)
    assert list(tmp_path.iterdir()) == []
