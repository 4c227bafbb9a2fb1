"""The linear path, the solvers' order, guidance."""

import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from diffusions import ddpm, flow
from diffusions.samplers import FIXED_STEP, guided, integrate
from models.LengthEstimator import length_distribution


def test_the_path_leads_from_noise_to_data_along_its_velocity():
    x1, x0 = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    zero, one = torch.zeros(5, 1), torch.ones(5, 1)
    assert torch.equal(flow.interpolate(x1, x0, zero)[0], x0)
    assert torch.equal(flow.interpolate(x1, x0, one)[0], x1)
    a, v = flow.interpolate(x1, x0, torch.full((5, 1), 0.3, dtype=torch.float64))
    b, _ = flow.interpolate(x1, x0, torch.full((5, 1), 0.3 + 1e-6, dtype=torch.float64))
    torch.testing.assert_close((b - a) / 1e-6, v, atol=1e-8, rtol=1e-6)


def test_the_true_velocity_has_no_loss_and_an_offset_has_its_square():
    x1, noise, t = torch.randn(6, 4), torch.randn(6, 4), torch.rand(6)
    exact = flow.loss(lambda x, t, z: x1 - noise, x1, None, t, noise)
    assert torch.equal(exact, torch.zeros(6))
    off = flow.loss(lambda x, t, z: x1 - noise + 0.5, x1, None, t, noise)
    torch.testing.assert_close(off, torch.full((6,), 0.25))


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2)])
def test_a_solver_has_its_order(solver, order):
    """dx/dt = -x + cos(4t): the error falls by 2^order when the steps are halved."""
    x0 = torch.tensor([[2.0]], dtype=torch.float64)
    exact = (2 - 1 / 17) * math.exp(-1) + (math.cos(4) + 4 * math.sin(4)) / 17

    def error(steps):
        return abs(float(integrate(lambda x, t: -x + torch.cos(4 * t), x0, solver, steps)) - exact)

    assert math.log2(error(40) / error(80)) == pytest.approx(order, abs=0.1)


def test_dopri5_solves_to_its_tolerance():
    x0 = torch.tensor([[2.0], [-1.0]], dtype=torch.float64)
    solved = integrate(lambda x, t: -x, x0, "dopri5", rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(solved, x0 * math.exp(-1), atol=1e-7, rtol=0)


@pytest.mark.parametrize("solver", FIXED_STEP)
def test_a_row_does_not_depend_on_its_neighbours(solver):
    weight = torch.randn(3, 3, dtype=torch.float64)
    x = torch.randn(8, 3, dtype=torch.float64)

    def velocity(x, t):
        return torch.tanh(x @ weight) * (1 + t)

    together = integrate(velocity, x, solver, 4)
    torch.testing.assert_close(together[2:3], integrate(velocity, x[2:3], solver, 4), atol=1e-12, rtol=0)


def test_guidance_extrapolates_and_skips_the_second_pass_at_one():
    rows = []

    def net(x, t, z):
        rows.append(len(x))
        return x + z + t[:, None]

    x, z, z_null, t = torch.ones(2, 1), torch.full((2, 1), 3.0), torch.zeros(2, 1), torch.tensor(0.5)
    # null = 1.5, cond = 4.5: 1.5 + s (4.5 - 1.5)
    for scale, value in ((0.0, 1.5), (1.0, 4.5), (4.5, 15.0)):
        torch.testing.assert_close(guided(net, z, z_null, scale)(x, t), torch.full((2, 1), value))
    assert rows == [4, 2, 4]


class Float64Off(TorchDispatchMode):
    """Refuses float64 anywhere but on the host, as Apple's GPUs do."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if torch.is_tensor(out) and out.dtype == torch.float64:
            assert out.device.type == "cpu", function
        return out


def test_no_float64_reaches_a_device():
    with Float64Off():
        x0 = torch.randn(5, 3, device="meta")
        ddpm.loss(lambda x, t, z: x, ddpm.Schedule.cosine(50), x0, None)
        ddpm.sample(lambda x, t: x, ddpm.Schedule.cosine(4), x0, torch.randn(5, 4, 3, device="meta"))
    with FakeTensorMode(), Float64Off():
        assert length_distribution(torch.randn(2, 50, device="cuda"), 6).device.type == "cpu"
