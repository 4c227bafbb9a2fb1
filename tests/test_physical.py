"""Physical features and set measures: closed forms, invariances, what they must and must not notice."""

import numpy as np
import pytest
import scipy.stats

from experiments import speeds
from motion.skeletons import KIT21, SMPL22, mirror_joints
from tests.bodies import rest_pose
from utils.evaluation.physical import (
    FEATURES,
    derivative,
    describe,
    energy_distance,
    off_diagonal,
    path_distances,
    within_group_spread,
    yaw,
)

FPS, T = 20.0, 60


def standing(skeleton=SMPL22, frames=T):
    """A person of unit bones, facing +Z, at rest."""
    return np.tile(rest_pose(skeleton, 0.3), (frames, 1, 1))


def feature(values, name):
    return values[FEATURES.index(name)]


def turned(joints, angles):
    """Joints [T,J,3] turned about +Y by angles [T], from +Z towards +X (to the left)."""
    sin, cos = np.sin(angles)[:, None], np.cos(angles)[:, None]
    x, y, z = np.moveaxis(joints, -1, 0)
    return np.stack([cos * x + sin * z, y, cos * z - sin * x], axis=-1)


@pytest.mark.parametrize("skeleton", [SMPL22, KIT21], ids=lambda skeleton: skeleton.name)
def test_at_rest_nothing_moves(skeleton):
    values = describe(standing(skeleton), skeleton, FPS, skate=0.25)
    assert values.shape == (len(FEATURES),) and np.isfinite(values).all()
    moving = [
        i for i, name in enumerate(FEATURES) if name.rpartition("_")[2] not in ("lateral", "up", "forward")
    ]
    assert values[moving] == pytest.approx([0.25 * (FEATURES[i] == "skate") for i in moving], abs=1e-9)
    assert feature(values, "left_wrist_lateral") > 0 > feature(values, "right_wrist_lateral")


def test_a_walk_along_a_line_and_a_turn_on_the_spot():
    joints = standing()
    joints[:, :, 2] += 1.5 * np.arange(T)[:, None] / FPS
    values = describe(joints, SMPL22, FPS)
    assert feature(values, "root_speed") == feature(values, "head_speed") == pytest.approx(1.5)
    assert feature(values, "path_displacement") == pytest.approx(1.5 * (T - 1) / FPS)
    assert feature(values, "head_jerk") == pytest.approx(0, abs=1e-6)
    theta = np.linspace(0, 1.5 * np.pi, T)  # past pi without a jump
    assert yaw(turned(standing(), theta), SMPL22)[30] == pytest.approx(theta[30], abs=1e-3)
    values = describe(turned(standing(), theta), SMPL22, FPS)
    assert feature(values, "path_turning") == pytest.approx(1.5 * np.pi, abs=0.6)  # its ends are smoothed
    assert feature(values, "path_displacement") == pytest.approx(0, abs=1e-9)
    assert feature(values, "left_wrist_lateral") == pytest.approx(
        feature(describe(standing(), SMPL22, FPS), "left_wrist_lateral"), abs=0.02
    )


def test_each_end_has_its_own_speeds_and_places():
    """A wrist that gathers speed forwards, an ankle that rises ever faster, on a body that stands."""
    still, joints, t = describe(standing(), SMPL22, FPS), standing(), np.arange(T) / FPS
    wrist, ankle = SMPL22.wrists[0], SMPL22.feet[0]
    joints[:, wrist, 2] += t**2  # 2 m/s^2
    joints[:, ankle, 1] += t**3 / 2  # 3 m/s^3
    values = dict(zip(FEATURES, describe(joints, SMPL22, FPS) - still))
    speeds = np.diff(t**2) * FPS
    expected = {
        "left_wrist_speed": speeds.mean(),
        "left_wrist_speed_95": np.percentile(speeds, 95),
        "left_wrist_acceleration": 2,
        "left_wrist_forward": np.mean(t**2),
        "left_wrist_forward_extent": t[-1] ** 2,
        "left_ankle_speed": np.mean(np.diff(t**3 / 2)) * FPS,
        "left_ankle_speed_95": np.percentile(np.diff(t**3 / 2), 95) * FPS,
        "left_ankle_acceleration": np.mean(np.diff(t**3 / 2, n=2)) * FPS**2,
        "left_ankle_jerk": 3,
        "left_ankle_up": np.mean(t**3 / 2),
        "left_ankle_up_extent": t[-1] ** 3 / 2,
    }
    assert values == pytest.approx(dict.fromkeys(FEATURES, 0.0) | expected, abs=1e-6)


def test_the_root_has_speed_acceleration_and_jerk():
    joints, t = standing(), np.arange(T) / FPS
    joints[:, :, 0] += (t**3 / 3)[:, None]
    joints[:, :, 1] += (7 * t**3)[:, None]  # rising does not count
    values = describe(joints, SMPL22, FPS)
    for order, name in enumerate(("root_speed", "root_acceleration", "root_jerk"), start=1):
        assert feature(values, name) == pytest.approx(np.mean(np.diff(t**3 / 3, n=order)) * FPS**order)


def test_the_heading_is_that_of_hips_and_shoulders_alike():
    joints, turn = standing(), 0.6
    for side in SMPL22.shoulders:
        joints[:, side] = turned(joints[:, [side]], np.full(T, turn))[:, 0]
    (left_hip, right_hip), (left, right) = SMPL22.hips, SMPL22.shoulders
    x, _, z = joints[0, left_hip] - joints[0, right_hip] + joints[0, left] - joints[0, right]
    assert 0.1 < np.arctan2(-z, x) < turn - 0.1
    assert yaw(joints, SMPL22) == pytest.approx(np.full(T, np.arctan2(-z, x)))


def test_features_do_not_depend_on_place_and_heading_and_mirror_with_the_body():
    rng = np.random.default_rng(0)
    joints = standing() + np.cumsum(rng.normal(0, 0.01, (T, 22, 3)), axis=0)
    values = describe(joints, SMPL22, FPS)
    moved = turned(joints, np.full(T, 2.0)) + [3.0, 0.0, -7.0]
    assert describe(moved, SMPL22, FPS) == pytest.approx(values, abs=1e-9)
    mirrored = describe(mirror_joints(joints, SMPL22), SMPL22, FPS)
    for name in ("speed", "jerk", "up_extent", "forward"):
        assert feature(mirrored, f"left_wrist_{name}") == pytest.approx(
            feature(values, f"right_wrist_{name}")
        )
    assert feature(mirrored, "left_wrist_lateral") == pytest.approx(-feature(values, "right_wrist_lateral"))
    assert feature(mirrored, "path_turning") == pytest.approx(-feature(values, "path_turning"))


def test_derivatives_of_a_cubic():
    t = np.arange(30)[:, None, None] / FPS
    cubic = np.concatenate([2 * t**3 / 6, 0 * t, 0 * t], axis=-1)
    assert derivative(cubic, 3, FPS) == pytest.approx(np.full((27, 1), 2.0))
    assert derivative(cubic[:3], 3, FPS).tolist() == [[0.0]]


def test_spread_within_groups_ignores_the_groups_means():
    groups = np.repeat(np.arange(200), 5)
    x = np.random.default_rng(0).normal(0, [1.0, 3.0], (1000, 2)) + 100 * groups[:, None]
    assert within_group_spread(x, groups) == pytest.approx([1.0, 3.0], rel=0.1)


def test_energy_distance_by_brute_force():
    """Within groups, standardised by the spread within groups, and a group counts by its clips."""
    groups = np.repeat([0, 1, 2], [4, 6, 1])
    x, y = np.random.default_rng(1).normal(size=(2, 11, 3)) + 9 * groups[:, None]
    norm = np.linalg.norm
    d = [norm(x[i] - y[j]) for i in range(11) for j in range(11) if i != j]
    assert off_diagonal(x, y) == pytest.approx(sum(d))
    residual = np.concatenate([x[groups == g] - x[groups == g].mean(axis=0) for g in range(3)])
    spread = np.sqrt((residual**2).sum(axis=0) / (11 - 3))
    a, b = x / spread, y / spread

    def within(rows):
        pairs = [(i, j) for i in rows for j in rows if i != j]
        return np.mean([2 * norm(a[i] - b[j]) - norm(a[i] - a[j]) - norm(b[i] - b[j]) for i, j in pairs])

    expected = 0.4 * within(range(4)) + 0.6 * within(range(4, 10))
    assert energy_distance(x, y, groups) == pytest.approx(expected)


def test_energy_distance_is_zero_in_expectation_for_one_distribution_paired_or_not():
    rng = np.random.default_rng(2)
    groups, paired, unpaired = np.repeat(np.arange(4), 8), [], []
    for _ in range(200):
        x, y = rng.normal(size=(2, 32, 5)) + groups[:, None]
        unpaired.append(energy_distance(x, y, groups))
        paired.append(energy_distance(x, x + 1e-3 * y, groups))
    assert abs(np.mean(unpaired)) < 3 * np.std(unpaired) / np.sqrt(200) + 0.02
    assert abs(np.mean(paired)) < 0.02
    assert energy_distance(x, y + 1, groups) > 0.5
    assert energy_distance(x, np.roll(x, 8, axis=0), groups) > 0.5  # the right clips under the wrong labels
    assert energy_distance(x, y, np.arange(32)) is None  # every group alone


def test_a_feature_that_never_moves_is_left_out():
    x, y = np.random.default_rng(3).normal(size=(2, 10, 2))
    constant = np.full((10, 1), 5.0)
    groups = np.zeros(10)
    padded = energy_distance(np.hstack([x, constant]), np.hstack([y, constant + 1]), groups)
    assert padded == pytest.approx(energy_distance(x, y, groups))


def test_path_distances_are_wasserstein_within_groups():
    rng = np.random.default_rng(4)
    groups = np.repeat([0, 1], [10, 30])
    real, pred = rng.normal(size=(2, 40, len(FEATURES)))
    column = FEATURES.index("path_displacement")
    w = [
        scipy.stats.wasserstein_distance(real[groups == g, column], pred[groups == g, column]) for g in (0, 1)
    ]
    found = path_distances(real, pred, groups)
    assert found["path_displacement"] == pytest.approx((w[0] + 3 * w[1]) / 4)
    shifted = real.copy()
    shifted[:, FEATURES.index("path_turning")] += np.pi / 2
    shifted[:, FEATURES.index("root_speed")] -= 0.4
    found = path_distances(real, shifted, groups)
    assert found["path_turning"] == pytest.approx(90) and found["path_speed"] == pytest.approx(0.4)
    assert found["path_displacement"] == 0
    assert "path_speed" not in path_distances(real - 100, pred, groups)
    real[:, FEATURES.index("root_speed")] = np.repeat([0.45, 0.55], [30, 10])  # these ten walk
    shifted[:, FEATURES.index("root_speed")] = np.repeat([9.0, 0.85], [30, 10])
    assert path_distances(real, shifted, groups)["path_speed"] == pytest.approx(0.3)


def test_speeds_are_compared_within_classes_of_real_speed():
    """At half speed a metre a second becomes -50%, and a class without clips has no row."""
    joints = np.zeros((T, 22, 3))
    joints[:, :, 2] = np.arange(T)[:, None] / FPS  # 1 m/s
    joints[:, :, 1] = np.sin(np.arange(T))[:, None]  # up and down, which does not count
    assert speeds.speed(joints, FPS) == pytest.approx(1)
    real, frames = np.array([0.2, 1.0, 3.0]), np.array([10, 10, 20])
    rows = speeds.table(real, {"half": real / 2, "same": real}, frames).splitlines()[2:]
    assert [row.split(" | ")[1:] for row in rows] == [
        ["1", "25.0%", "0.20", "0.10 (-50%)", "0.20 (+0%) |"],
        ["1", "25.0%", "1.00", "0.50 (-50%)", "1.00 (+0%) |"],
        ["1", "50.0%", "3.00", "1.50 (-50%)", "3.00 (+0%) |"],
    ]
