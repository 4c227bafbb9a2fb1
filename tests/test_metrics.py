"""Metrics against closed forms and an independent FID."""

import math
from dataclasses import fields
from functools import partial

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from utils import metrics
from utils.eval_utils import Metrics, twins
from utils.evaluation_report import MEASURES
from utils.statistics import mean_ci95, spearman


def rows(n, d, seed=0, scale=1.0, shift=0.0):
    return np.random.default_rng(seed).normal(shift, scale, (n, d))


@pytest.mark.parametrize(("n1", "n2", "d"), [(100, 80, 16), (500, 37, 30)])
def test_fid_agrees_with_the_matrix_root(n1, n2, d):
    mix = rows(d, d, seed=9)
    x, y = rows(n1, d, 1) @ mix, rows(n2, d, 2, 1.5, 0.3)
    c1, c2 = np.cov(x.T), np.cov(y.T)
    root = scipy.linalg.sqrtm(c1 @ c2).real
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(c1 + c2 - 2 * root)
    assert metrics.fid(x, y) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("n", [2, 10, 64, 200])
def test_fid_with_fewer_rows_than_dimensions(n):
    x, y = rows(n, 64, 1), rows(n + 3, 64, 2)
    value = metrics.fid(x, y)
    assert np.isfinite(value) and value > 0
    assert metrics.fid(x, x) == pytest.approx(0, abs=1e-9)
    assert metrics.fid(y, x) == pytest.approx(value, rel=1e-9)
    shift = np.ones(64)
    assert metrics.fid(x, x + shift) == pytest.approx(64, rel=1e-9)


def test_kid_by_brute_force_and_around_zero_for_one_distribution():
    x, y = rows(7, 3, 1), rows(5, 3, 2)

    def k(a, b):
        return (a @ b / 3 + 1) ** 3

    xx = np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    yy = np.mean([k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    xy = np.mean([k(a, b) for a in x for b in y])
    assert metrics.kid(x, y) == pytest.approx(xx + yy - 2 * xy, rel=1e-12)
    same = [metrics.kid(rows(40, 4, s), rows(40, 4, 1000 + s)) for s in range(200)]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(len(same))
    assert min(same) < 0


def test_kid_of_paired_sets_does_not_fall_because_of_the_pairs():
    """Each generated row close to its own real row, both sets of one distribution: still around zero."""
    found = []
    for seed in range(200):
        x = rows(40, 4, seed)
        found.append(metrics.kid(x, x + 0.05 * rows(40, 4, 1000 + seed)))
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(len(found)) + 0.02
    assert metrics.kid(x, x) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("collapsed", [False, True])
def test_neighbourhoods_by_brute_force(k, collapsed):
    """collapsed: one real clip, again and again, whose balls have no width."""
    x = rows(20, 2, 1)
    y = np.repeat(x[:1], 15, axis=0) if collapsed else rows(15, 2, 2, 1.5)

    def radius(a, i):
        return sorted(np.linalg.norm(a - a[i], axis=1))[k]

    in_x = [[np.linalg.norm(x[i] - y[j]) < radius(x, i) for j in range(15)] for i in range(20)]
    in_y = [[np.linalg.norm(x[i] - y[j]) < radius(y, j) for j in range(15)] for i in range(20)]
    expected = {
        "precision": np.mean(np.any(in_x, axis=0)),
        "recall": np.mean(np.any(in_y, axis=1)),
        "density": np.sum(in_x) / (k * 15),
        "coverage": np.mean(np.any(in_x, axis=1)),
    }
    assert metrics.neighbourhoods(
        *(metrics.distances(*pair) for pair in ((x, y), (x, x), (y, y))), k
    ) == pytest.approx(expected)


def test_fid_within_groups_is_the_weighted_mean_of_large_groups():
    x, y = rows(70, 3, 1), rows(70, 3, 2, 1.2)
    groups = np.repeat(["a", "b", "c"], [20, 40, 10])
    a, b = metrics.fid(x[:20], y[:20]), metrics.fid(x[20:60], y[20:60])
    large = metrics.large_groups(groups)
    assert large.tolist() == ["a", "b"] and not len(metrics.large_groups(groups, least=50))
    assert metrics.fid_within(x, y, groups, large) == pytest.approx((a + 2 * b) / 3)
    assert metrics.fid_within(x, y, groups, []) is None
    assert metrics.fid_within(x[19:], y[19:], groups[19:], large) is None


def test_the_halves_of_fid_within_groups_are_of_the_groups_of_the_whole():
    """So its half width is about that of fresh samples, also where a half has fewer than 20 clips of each."""
    groups = np.repeat(np.arange(6), [35, 33, 31, 60, 34, 36])
    large, rng = metrics.large_groups(groups), np.random.default_rng(0)

    def sample():
        return rng.normal(size=(len(groups), 4)), rng.normal(size=(len(groups), 4)) + 1

    fresh = [metrics.fid_within(*sample(), groups, large) for _ in range(200)]

    def half_width(x, y):
        def measure(half):
            return {"fid": metrics.fid_within(x[half], y[half], groups[half], large)}

        return metrics.half_width(metrics.over_halves(measure, np.arange(len(groups)), rng)["fid"])

    widths = [half_width(*sample()) for _ in range(5)]
    assert 0.8 < np.mean(widths) / (1.96 * np.std(fresh)) < 2


def test_half_width_of_a_mean_is_the_textbooks():
    x = rows(400, 1, 3)[:, 0]
    halves = metrics.over_halves(
        lambda half: {"mean": x[half].mean(), "none": None},
        np.arange(400),
        np.random.default_rng(0),
        draws=1000,
    )
    assert metrics.half_width(halves["mean"]) == pytest.approx(1.96 * x.std(ddof=1) / 20, rel=0.1)
    assert math.isnan(metrics.half_width(halves["none"]))
    assert metrics.half_width([0.0, 2.0]) == pytest.approx(1.96 * 2**0.5)


def test_a_clip_and_its_mirror_image_are_one_observation():
    """Twins double the rows, not the information: the half width is that of the originals."""
    names = [f"{m}{i:03}" for m in ("", "M") for i in range(200)] + ["M900", "Mike"]
    units, x = twins(names), np.tile(rows(200, 1, 3)[:, 0], 2)
    assert units[:400].tolist() == [*range(200)] * 2 and units[400:].tolist() == [400, 401]
    seen = []

    def mean(half):
        seen.append(half)
        return {"mean": x[half].mean()}

    halves = metrics.over_halves(mean, units[:400], np.random.default_rng(0), draws=1000)
    assert metrics.half_width(halves["mean"]) == pytest.approx(1.96 * x[:200].std(ddof=1) / 200**0.5, rel=0.1)
    assert all(len(one) == 200 and set(one % 200) == set(one[:100]) for one in seen)


def test_what_some_halves_cannot_measure_has_no_half_width():
    """One clip of ten walks; a group of two has both in some halves only."""
    walking, x = np.arange(10) == 0, rows(40, 2, 4)

    def speed(half):
        return {"path_speed": 1.0} if walking[half].any() else {}

    def within(half):
        return {"fid_content": metrics.fid_within(x[half], x[half] + 1, (np.arange(40) < 2)[half], [True])}

    for seed in range(3):
        over_halves = partial(metrics.over_halves, rng=np.random.default_rng(seed))
        assert math.isnan(metrics.half_width(over_halves(speed, np.arange(10))["path_speed"]))
        assert math.isnan(metrics.half_width(over_halves(within, np.arange(40))["fid_content"]))


def test_per_clip_hits_average_to_r_precision_and_dropped_clips_have_none():
    text, motion = rows(70, 4, 1), rows(70, 4, 2)
    pools = metrics.draw_pools(70, np.random.default_rng(0), protocol="parent")
    hits = metrics.retrieval_hits(text, motion, pools)
    assert np.isnan(hits).any(axis=1).sum() == 6
    assert np.nanmean(hits, axis=0) == pytest.approx(metrics.r_precision(text, motion, pools))


def test_every_clip_is_scored_once_in_a_full_pool():
    for n in (32, 33, 63, 64, 100):
        pools = metrics.draw_pools(n, np.random.default_rng(n))
        scored = np.concatenate([indices[:count] for indices, count in pools])
        assert sorted(scored) == list(range(n))
        assert all(len(set(indices.tolist())) == 32 for indices, _ in pools)
        parent = metrics.draw_pools(n, np.random.default_rng(n), protocol="parent")
        assert len(parent) == n // 32 and all(count == 32 for _, count in parent)
    with pytest.raises(ValueError, match="32"):
        metrics.draw_pools(31)


def test_r_precision_finds_what_is_planted():
    n = 64
    motion = np.eye(n)[:, :, None].repeat(2, axis=2).reshape(n, -1) * 10
    pools = metrics.draw_pools(n)
    assert metrics.r_precision(motion, motion, pools).tolist() == [1, 1, 1]
    text = motion.copy()
    text[0::2], text[1::2] = motion[1::2], motion[0::2] + 0.1  # everyone stands at the neighbour's motion
    one_off = metrics.r_precision(text, motion, pools)
    assert one_off[0] == 0
    neighbours = metrics.r_precision(text, motion, pools, labels=np.arange(n) // 2)
    assert neighbours.tolist() == [1, 1, 1]


def test_collapsed_embeddings_score_as_chance():
    same = np.ones((50, 8), dtype=np.float32)
    pools = metrics.draw_pools(50, np.random.default_rng(0))
    assert metrics.r_precision(same, same, pools) == pytest.approx(np.array([1, 2, 3]) / 32)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(0, 10**6))
def test_ties_count_as_the_mean_over_their_orders(n_values, seed):
    """Distances of few values, against ranking with the ties broken by lot many times."""
    rng = np.random.default_rng(seed)
    distance = torch.as_tensor(rng.integers(0, n_values, (3, 6)).astype(float))
    wanted = torch.as_tensor(rng.random((3, 6)) < 0.4)
    wanted[:, 0] = True
    draws = 2000
    lots = torch.as_tensor(rng.random((draws, 3, 6))) * 0.5
    ranking = (distance + lots).argsort(dim=2)
    found = wanted.expand(draws, -1, -1).gather(2, ranking)[:, :, :3].cumsum(dim=2) > 0
    expected = found.double().mean(dim=0)
    assert torch.allclose(metrics._hits(distance, wanted), expected, atol=0.06)


def test_label_ceiling_is_what_a_guess_among_equals_reaches():
    labels = ["a"] * 16 + ["b"] * 16
    ceiling = metrics.label_ceiling(labels, metrics.draw_pools(32))
    assert ceiling == pytest.approx(np.array([1, 2, 3]) / 16)
    assert metrics.label_ceiling(list(range(32)), metrics.draw_pools(32)) == pytest.approx([1, 1, 1])


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 400), st.integers(0, 10**6))
def test_nobody_is_paired_with_itself(n, seed):
    count = metrics.diversity_pairs(n)
    first, second = metrics.draw_pairs(n, count, np.random.default_rng(seed))
    assert len(first) == (300 if n > 300 else min(100, n - 1)) == len(set(first.tolist()))
    assert (first != second).all() and second.min() >= 0 and second.max() < n


def test_diversity_and_multimodality_of_known_distances():
    square = np.array([[0, 0], [3, 4], [6, 8], [0, 0]], dtype=float)
    assert metrics.diversity(square, [0, 1], [1, 2]) == 5
    assert metrics.diversity(square, [0, 0], [2, 3]) == 5
    repeats = np.stack([square, square + 100])
    assert metrics.multimodality(repeats, [0, 1], [1, 2]) == 5


def test_students_interval_and_rank_correlation_in_closed_form():
    mean, half = mean_ci95([1.0, 2.0, 6.0])
    assert mean == 3 and half == pytest.approx(4.302653 * (7 / 3) ** 0.5)
    assert math.isnan(mean_ci95([4.0])[1])
    x = np.arange(5.0)
    assert spearman(x, np.exp(x)) == pytest.approx(1) and spearman(x, -(x**3)) == pytest.approx(-1)
    assert spearman(x, np.ones(5)) is None is spearman(x[:2], x[:2])


def mpjpe(preds, reals, root=0):
    return metrics.ratio([metrics.pose_error_sums(p, r, root) for p, r in zip(preds, reals)])


def root_speed(clips, fps):
    return metrics.ratio([metrics.root_travel_sums(clip, fps) for clip in clips])


def jitter(clips, fps):
    return metrics.ratio([metrics.jitter_sums(clip, fps) for clip in clips])


def test_a_set_of_less_than_a_frame_a_second_has_a_root_speed():
    ways = np.zeros((5, 1, 3))
    ways[:, 0, 0] = np.arange(5) * 3
    assert root_speed([ways], 0.4) == pytest.approx(3 * 0.4)


def test_mpjpe_knows_the_root():
    real = rows(20 * 5, 3).reshape(20, 5, 3)
    pred = real + np.array([0.3, 0, 0.4])
    assert mpjpe([pred], [real]) == pytest.approx(0, abs=1e-12)
    assert mpjpe([pred], [real], root=None) == pytest.approx(0.5)
    longer = np.concatenate([real] * 3)  # the mean is over frames, not over clips
    assert mpjpe([pred, longer], [real, longer], root=None) == pytest.approx(0.5 / 4)


def walk(speed, height, fps=20.0, n_frames=41):
    """One clip of 22 joints at rest but for the left foot (joint 10), which moves along x at `height`."""
    joints = np.full((n_frames, 22, 3), 1.0)
    joints[:, 10, 0] = np.arange(n_frames) * speed / fps
    joints[:, 10, 1] = height
    return joints


FEET = (7, 10, 8, 11)


@pytest.mark.parametrize(
    ("speed", "height", "share"), [(0.51, 0.049, 1), (0.49, 0.049, 0), (0.51, 0.051, 0), (-0.51, 0.049, 1)]
)
def test_foot_skate(speed, height, share):
    assert metrics.foot_skate([walk(speed, height)], FEET, 20.0) == share


def test_a_foot_is_low_where_its_step_begins():
    lifted = walk(0.6, 0.02, n_frames=2)
    lifted[1, 10, 1] = 1.0
    assert metrics.skate_sums(lifted, FEET, 20.0) == (1, 1)
    assert metrics.skate_sums(lifted[::-1].copy(), FEET, 20.0) == (0, 0)


def test_foot_skate_is_horizontal():
    sideways, lifted = walk(0.6, 0.02), walk(0.0, 0.02)
    sideways[:, 10, 2], sideways[:, 10, 0] = sideways[:, 10, 0], 0
    lifted[:, 10, 1] = -np.arange(len(lifted)) * 0.6 / 20
    assert metrics.foot_skate([sideways], FEET, 20.0) == 1 and metrics.foot_skate([lifted], FEET, 20.0) == 0


def test_pace_is_what_is_covered_within_a_second():
    fps, t = 20.0, np.arange(50) / 20.0
    slow = np.arange(30)[:, None, None] / 12.5 * [0.0, 0.0, 1.3]  # a second is no whole number of frames
    assert root_speed([slow], 12.5) == pytest.approx(1.3, rel=1e-6)
    walk, sway = np.zeros((50, 2, 3)), np.zeros((50, 2, 3))
    walk[:, :, 2], walk[:, :, 1] = 1.3 * t[:, None], t[:, None] ** 2  # rising does not count
    sway[:, :, 0] = np.sin(2 * np.pi * t)[:, None]  # there and back each second
    assert root_speed([walk], fps) == pytest.approx(1.3, rel=1e-6)
    assert root_speed([sway], fps) == pytest.approx(0, abs=1e-9)
    assert root_speed([walk, walk[:20]], fps) == pytest.approx(1.3, rel=1e-6)  # too short to count
    assert root_speed([walk, sway], fps) == pytest.approx(0.65, rel=1e-6)


def test_jitter_is_the_third_derivative():
    fps, t = 20.0, np.arange(30) / 20.0
    cubic = np.zeros((30, 2, 3))
    cubic[:, :, 0] = (2.0 * t**3 / 6)[:, None]
    assert jitter([cubic], fps) == pytest.approx(2.0, rel=1e-9)
    assert jitter([cubic, cubic[:3]], fps) == pytest.approx(2.0, rel=1e-9)  # too short to count
    assert jitter([cubic * 0 + t[:, None, None] ** 2], fps) == pytest.approx(0, abs=1e-8)


def test_every_measure_is_shown():
    assert {field.name for field in fields(Metrics)} - {"n_real", "n_pred"} == set(MEASURES)


def test_a_value_that_is_not_a_number_does_not_count_as_zero():
    assert math.isnan(metrics.ratio([[math.nan, 1], [1, 1]])) and metrics.ratio([[0, 0]]) == 0
