"""Joints -> BVH -> joints through our own reader; hinges, rest pose, varying bones."""

import tracemalloc
import warnings

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from test_motion_process import walk

from motion.bvh import read_bvh
from motion.bvh.pose import fit_bones, place, skeleton_pose
from motion.bvh.rigs import bone_lengths, to_joints22
from motion.bvh.writer import write_bvh
from motion.rotations import best_fit, unit
from motion.skeletons import KIT21, SMPL22
from tests.bodies import packed_clips


def there_and_back(tmp_path, joints, fps=20.0):
    write_bvh(tmp_path / "motion.bvh", joints, fps)
    bvh = read_bvh(tmp_path / "motion.bvh")
    assert bvh.fps == fps and len(bvh) == len(joints)
    return to_joints22(bvh)


@pytest.mark.parametrize("pose", ["as it is", "facing away", "lying", "upside down", "twice round"])
def test_real_motion_comes_back(tmp_path, real_walk, pose):
    angles = np.zeros((len(real_walk), 3))
    angles[:, 1] = {"facing away": 180, "twice round": np.linspace(0, 720, len(real_walk))}.get(pose, 0)
    angles[:, 0] = {"lying": -90, "upside down": 180}.get(pose, 0)
    turns = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    joints = np.einsum("tij,tkj->tki", turns, real_walk)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        back = there_and_back(tmp_path, joints)
    assert np.linalg.norm(back - joints, axis=-1).max() < 1e-4


def test_bones_are_constant_and_rotations_are_rotations(real_walk):
    offsets, world = skeleton_pose(real_walk, SMPL22)
    assert np.allclose(np.linalg.norm(offsets, axis=1), bone_lengths(real_walk, SMPL22), atol=1e-6)
    assert np.allclose(world @ np.swapaxes(world, -1, -2), np.eye(3), atol=1e-9)
    assert np.allclose(np.linalg.det(world), 1)


def test_the_rest_pose_is_a_t_pose_whose_root_has_no_offset(tmp_path, real_walk):
    write_bvh(tmp_path / "motion.bvh", real_walk, 20)
    bvh = read_bvh(tmp_path / "motion.bvh")
    places = np.zeros_like(bvh.offsets)
    for joint, parent in enumerate(bvh.parents):
        places[joint] = bvh.offsets[joint] + (places[parent] if parent >= 0 else 0)
    at = dict(zip(bvh.names, places))
    assert (at["Hips"] == 0).all()
    assert at["LeftHand"][0] > at["LeftForeArm"][0] > at["LeftArm"][0] > 10 > -10 > at["RightHand"][0]
    assert at["Head"][1] > at["Neck"][1] > at["Spine2"][1] > 0 > at["LeftLeg"][1] > at["LeftFoot"][1]
    assert at["LeftToeBase"][2] > at["LeftFoot"][2] + 5


@pytest.fixture(scope="module", params=["bandai_namco", "cmu_humanml3d"])
def posed(request, data_dir):
    """Real clips with their poses."""
    clips = packed_clips(data_dir / request.param, slice(5, None, 150)).values()
    return [(clip, skeleton_pose(clip, SMPL22)[1]) for clip in clips]


def test_elbows_and_knees_hinge_on_one_axis(posed):
    deviations = []
    for joints, world in posed:
        for lower in (4, 5, 18, 19):  # knees, elbows
            upper, end = SMPL22.parents[lower], lower + (3 if lower < 6 else 2)
            thigh, shin = unit(joints[:, lower] - joints[:, upper]), unit(joints[:, end] - joints[:, lower])
            bent = (thigh * shin).sum(axis=-1) < np.cos(np.radians(25))
            local = np.swapaxes(world[bent, upper], -1, -2) @ world[bent, lower]
            if bent.any():
                axes = unit(Rotation.from_matrix(local).as_rotvec())
                cosines = np.clip(axes @ unit(axes.mean(axis=0)), -1, 1)
                deviations.append(np.degrees(np.arccos(cosines)))
    deviations = np.concatenate(deviations)
    assert len(deviations) > 3000
    assert np.median(deviations) < 0.5 and np.percentile(deviations, 95) < 2 and deviations.max() < 15


def test_limbs_spin_about_themselves_little_more_than_their_hinges_ask_for(posed):
    spins = []
    for joints, world in posed:
        bones = unit(joints[:, 1:] - joints[:, list(SMPL22.parents[1:])])
        swings = np.arccos(np.clip((bones[1:] * bones[:-1]).sum(axis=-1), -1, 1))
        steps = np.swapaxes(world[:-1], -1, -2) @ world[1:]
        for lower in (4, 5, 18, 19):
            turns = Rotation.from_matrix(steps[:, SMPL22.parents[lower]]).magnitude()
            spins.append(np.degrees(turns - swings[:, lower - 1]))
    assert np.percentile(np.concatenate(spins), 99) < 12  # degrees a frame
    assert np.concatenate(spins).max() < 60


@pytest.mark.parametrize("lean, pitch", [(38, 20), (7, 40)])
def test_a_standing_body_has_head_and_feet_as_at_rest(lean, pitch):
    """A neck that leans and an ankle above the toe belong to the body: no rotation may stand for them."""
    standing = np.zeros((22, 3))
    for joint, parent in enumerate(SMPL22.parents[1:], start=1):
        bone = np.array(SMPL22.directions[joint], dtype=float)
        if joint in (SMPL22.head, 10, 11):
            angle = np.radians(90 - lean if joint == SMPL22.head else -pitch)
            bone = np.array([0, np.sin(angle), np.cos(angle)])
        standing[joint] = standing[parent] + 0.2 * bone
    joints = np.repeat(standing[None], 8, axis=0)
    for heading in (0, 2):
        turn = Rotation.from_euler("y", heading).as_matrix()
        _, world = skeleton_pose(joints @ turn.T, SMPL22)
        level = world[:, [SMPL22.parents[SMPL22.head], SMPL22.head, *SMPL22.feet]]
        assert np.abs(level - turn).max() < 1e-3


def test_varying_bones_are_fitted_and_constant_ones_left_alone(real_walk):
    """Noise of about a centimetre a joint: hands end near their place, the root at it."""
    joints = real_walk + np.random.default_rng(0).normal(0, 0.005, real_walk.shape)
    errors = []
    for fitted in (joints, fit_bones(joints, SMPL22)):
        offsets, world = skeleton_pose(fitted, SMPL22)
        placed = place(offsets, world, joints[:, 0], SMPL22)
        errors.append(np.linalg.norm(placed - joints, axis=-1))
    assert np.abs(placed - fitted).max() < 1e-6 and errors[1][:, 0].max() < 1e-12
    assert errors[1].mean() < 0.6 * errors[0].mean() and errors[1].max() < 0.03
    assert errors[1][:, list(SMPL22.wrists)].mean() < 0.3 * errors[0][:, list(SMPL22.wrists)].mean()
    assert np.abs(fit_bones(real_walk, SMPL22) - real_walk).max() < 1e-4
    assert fit_bones(joints[:1], SMPL22).shape == (1, 22, 3)


def test_a_long_motion_is_fitted_in_blocks_to_the_same_bits(varying_walk, monkeypatch):
    whole = fit_bones(varying_walk, SMPL22)
    monkeypatch.setattr("motion.bvh.pose.BLOCK", 50)
    assert len(varying_walk) % 50 and np.array_equal(fit_bones(varying_walk, SMPL22), whole)
    long = np.tile(varying_walk, (10, 1, 1))
    tracemalloc.start()
    fit_bones(long, SMPL22)
    assert tracemalloc.get_traced_memory()[1] < 30e3 * len(long)  # at once they take 134 kB a frame
    tracemalloc.stop()


def test_kit_is_written_in_centimetres_with_its_own_names(tmp_path):
    joints = walk(KIT21, frames=40, turn=7.0, wobble=0.0)
    write_bvh(tmp_path / "kit.bvh", joints, 12.5, KIT21)
    bvh = read_bvh(tmp_path / "kit.bvh")
    order = [bvh.names.index(name) for name in KIT21.joints]
    assert bvh.fps == 12.5
    assert np.abs(bvh.forward()[1][:, order] * 10 - joints).max() < 0.1  # millimetres


def test_joints_on_one_line_keep_the_orientation_of_the_bone_before():
    prior = Rotation.from_euler("xyz", [0.3, 0.2, 0.1]).as_matrix()[None]
    rest = np.array([[0.0, 1, 0], [0, 2, 0]])
    assert np.allclose(best_fit(rest, np.einsum("tij,kj->tki", prior, rest), prior), prior, atol=1e-4)
    assert np.allclose(best_fit(rest * 0, rest[None] * 0, prior), prior, atol=1e-4)
