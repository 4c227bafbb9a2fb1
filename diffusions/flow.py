"""The linear path of flow matching (SiT, Ma et al., ECCV 2024; Lipman et al., ICLR 2023): noise at t=0, data
at t=1.
"""

import torch


def interpolate(x1, x0, t):
    """x_t = alpha_t x1 + sigma_t x0 with alpha_t = t, sigma_t = 1 - t, and its velocity v_t.

    Data x1, noise x0 [N,D]; t [N,1] -> x_t, v_t.
    """
    x_t = t * x1 + (1 - t) * x0
    v_t = x1 - x0  # alpha'_t x1 + sigma'_t x0, what the head regresses
    return x_t, v_t


def loss(net, x1, z, t=None, noise=None):
    """Mean squared error of the predicted velocity, per row [N]. net(x [N,D], t [N], z [N,H]) -> [N,D]."""
    t = torch.rand(len(x1), device=x1.device, dtype=x1.dtype) if t is None else t
    noise = torch.randn_like(x1) if noise is None else noise
    x_t, v_t = interpolate(x1, noise, t[:, None])
    return (net(x_t, t, z) - v_t).square().mean(dim=1)
