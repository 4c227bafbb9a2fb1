"""Solvers of dx/dt = v(x, t) from t = 0 (noise) to t = 1 (data), and guidance.

v takes (x [N,D], t []) and returns [N,D]. A fixed-step solver treats every row by itself, so a row's result
does not depend on its neighbours; the adaptive one shares its step sizes among the rows of a call.
"""

import torch


def euler(v, x, t, dt):
    """A step of first order, 1 evaluation of v."""
    return x + dt * v(x, t)


def midpoint(v, x, t, dt):
    """A step of second order, 2 evaluations."""
    return x + dt * v(x + dt / 2 * v(x, t), t + dt / 2)


def heun(v, x, t, dt):
    """A step of second order, 2 evaluations: the mean of the slopes at both ends."""
    slope = v(x, t)
    return x + dt / 2 * (slope + v(x + dt * slope, t + dt))


FIXED_STEP = {"midpoint": midpoint, "heun": heun, "euler": euler}  # a new solver is entered here alone


def integrate(v, x, solver="midpoint", steps=4, rtol=1e-3, atol=1e-6):
    """x [N,D] carried from t = 0 to 1 by a fixed-step solver, or by torchdiffeq's dopri5 (rtol, atol)."""
    if solver == "dopri5":
        from torchdiffeq import odeint  # here: with scipy the import takes a second

        # MARDM's 50 output times; with dense output they cost nothing and fix the solver's last steps.
        times = torch.linspace(0, 1, 50, device=x.device, dtype=x.dtype)
        return odeint(lambda t, x: v(x, t), x, times, method="dopri5", rtol=rtol, atol=atol)[-1]
    step, dt = FIXED_STEP[solver], 1 / steps
    for i in range(steps):
        x = step(v, x, x.new_full((), i * dt), dt)  # filled on the device: no copy to wait for
    return x


def solver_times(solver, steps, like):
    """The times [T] at which `integrate` asks for v, in order; None for a solver that chooses them itself.
    like: a tensor of x's dtype and device.
    """
    if solver not in FIXED_STEP:
        return None
    times = []
    integrate(lambda x, t: times.append(t) or x, like.new_zeros(()), solver, steps)
    return torch.stack(times)


EVALUATIONS = {name: len(solver_times(name, 1, torch.zeros(()))) for name in FIXED_STEP}  # of v per step


def guided(net, z, z_null, scale):
    """Classifier-free guidance (Ho & Salimans, 2022): net_null + scale (net_cond - net_null), both in one
    call.

    net(x, t, z) -> f(x, t), t [] or one per row [N]. A scale of 1 needs no unconditional pass. scale: a
    number, or one per row [N,1]; x may be several draws of each row [K,N,D].
    """
    if not torch.is_tensor(scale) and scale == 1:
        return lambda x, t: net(x, t.expand(len(z)), z)
    both = torch.cat([z, z_null])

    def field(x, t):
        times = t.expand(len(z)).repeat(2)
        cond, null = net(torch.cat([x, x], dim=-2), times, both).chunk(2, dim=-2)
        return torch.lerp(null, cond, scale)

    return field
