"""Finite Scalar Quantization: all values, exact indices, the nearest grid point."""

import itertools
import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.AE import FSQ_LEVELS
from models.FSQ import FSQ, MOST_LEVELS

LEVELS = st.lists(st.integers(3, 12), min_size=1, max_size=5)


@pytest.mark.parametrize("L", range(3, 18))
def test_every_level_gives_exactly_L_values_in_the_unit_interval(L):
    values = FSQ([L])(torch.linspace(-9, 9, 20001, dtype=torch.float64)[:, None]).unique()
    expected = (torch.arange(L, dtype=torch.float64) - L // 2) / (L // 2)
    torch.testing.assert_close(values, expected)
    assert values.abs().max() <= 1


@pytest.mark.parametrize("L", range(3, 18))
def test_a_value_begins_where_the_papers_bound_passes_half_a_step(L):
    """At atanh((k + 1/2 + o) / h) - atanh(o / h), for each step k."""
    h, o = (L - 1) * (1 + 1e-3) / 2, 0.5 if L % 2 == 0 else 0.0
    steps = torch.arange(-(L // 2), (L - 1) // 2, dtype=torch.float64)
    border = torch.atanh((steps + 0.5 + o) / h) - math.atanh(o / h)
    for side, step in ((-1e-5, steps), (1e-5, steps + 1)):
        torch.testing.assert_close(FSQ([L])((border + side)[:, None])[:, 0], step / (L // 2))


def test_two_levels_are_refused_with_the_reason_and_more_than_a_step_can_hold():
    with pytest.raises(ValueError, match="from 3"):
        FSQ([2, 5])
    for levels in (999, MOST_LEVELS):
        fsq = FSQ([levels])
        ends = fsq(torch.tensor([[-99.0], [99.0]]))
        assert torch.equal(fsq.snap(ends), ends)
        assert fsq.codes_to_indices(ends).tolist() == [0, levels - 1]
    with pytest.raises(ValueError, match="to 1000"):
        FSQ([MOST_LEVELS + 1])


@pytest.mark.parametrize(
    ("levels", "z", "codes", "index"),
    [
        ((8, 8, 8, 5, 5, 5), (0.3, -0.7, 1.2, -2, 0.05, 0.9), (0.25, -0.5, 0.75, -1, 0, 0.5), 43989),
        ((8, 8, 8, 5, 5, 5), (99,) * 6, (0.75, 0.75, 0.75, 1, 1, 1), 63999),
        ((8, 5, 5, 5, 5), (0,) * 5, (0,) * 5, 2500),
    ],
)
def test_fixed_points(levels, z, codes, index):
    fsq = FSQ(levels)
    z_q = fsq(torch.tensor(z, dtype=torch.float32))
    torch.testing.assert_close(z_q, torch.tensor(codes, dtype=torch.float32))
    assert fsq.codes_to_indices(z_q) == index == fsq.get_indices(z_q)


@pytest.mark.parametrize("levels", [(8, 5, 5), (7, 3), (5,) * 8, *FSQ_LEVELS.values()])
def test_every_index_survives_the_round_trip(levels):
    fsq, every = FSQ(levels), torch.arange(math.prod(levels))
    codes = fsq.indices_to_codes(every)
    assert torch.equal(fsq.codes_to_indices(codes), every)
    assert torch.equal(fsq.snap(codes), codes)


@settings(max_examples=40, deadline=None)
@example(levels=[3, 3, 6], seed=1322)  # in float32 cdist itself is more than 1e-5 off
@given(levels=LEVELS, seed=st.integers(0, 10**6))
def test_snap_is_the_nearest_grid_point(levels, seed):
    fsq = FSQ(levels[:3])
    coords = 3 * torch.randn(20, fsq.dim, generator=torch.Generator().manual_seed(seed))
    axes = [(torch.arange(L) - L // 2) / (L // 2) for L in fsq.levels]
    grid = torch.tensor(list(itertools.product(*axes)))
    # ties and rounding: compare distances, not points
    best = torch.cdist(coords.double(), grid.double()).min(dim=1).values
    away = (fsq.snap(coords).double() - coords.double()).norm(dim=1)
    torch.testing.assert_close(away, best, atol=1e-5, rtol=0)


@settings(max_examples=40, deadline=None)
@given(levels=LEVELS, seed=st.integers(0, 10**6))
def test_output_lies_on_the_grid_and_keeps_the_order_of_its_input(levels, seed):
    fsq = FSQ(levels)
    z = 2 * torch.randn(64, fsq.dim, generator=torch.Generator().manual_seed(seed))
    z_q = fsq(z)
    assert torch.equal(fsq.snap(z_q), z_q)
    by_input = z_q.gather(0, z.argsort(dim=0))
    assert (by_input.diff(dim=0) >= 0).all()


def test_the_gradient_goes_straight_through_the_rounding():
    z = torch.tensor([[0.3, -0.7]], dtype=torch.float64, requires_grad=True)
    fsq = FSQ([8, 5])
    fsq(z).sum().backward()
    h, s = fsq.half_width.double(), fsq.shift.double()
    expected = h * (1 - torch.tanh(z.detach() + s) ** 2) / fsq.scale
    torch.testing.assert_close(z.grad, expected)


def test_it_stays_float32_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert FSQ([8, 5])(torch.randn(3, 2, dtype=torch.bfloat16)).dtype == torch.float32
