"""Denoising diffusion with noise prediction (Ho et al., NeurIPS 2020; cosine schedule of Nichol & Dhariwal,
ICML 2021).

MARDM trains and samples on the same short schedule of 50 steps; a longer one can be respaced to fewer.
"""

import math

import torch


def cosine_betas(steps):
    """The cosine schedule's betas, float64 [steps]: beta_i = min(1 - abar(i+1)/abar(i), 0.999) with
    abar(t) = cos^2((t/steps + 0.008)/1.008 * pi/2).
    """
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    alpha_bar = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)


class Schedule:
    """Everything that follows from the betas, float64 [S]. timestep_map int64 [S]: the step number that the
    network gets at each step.
    """

    def __init__(self, betas, timestep_map=None):
        self.betas = betas
        self.timestep_map = torch.arange(len(betas)) if timestep_map is None else timestep_map
        self.alphas_cumprod = (1 - betas).cumprod(0)
        self.alphas_cumprod_prev = torch.cat([betas.new_ones(1), self.alphas_cumprod[:-1]])
        # q(x_{t-1} | x_t, x_0), eq. 7 of Ho et al.
        rest = 1 - self.alphas_cumprod
        self.posterior_variance = betas * (1 - self.alphas_cumprod_prev) / rest
        self.posterior_mean_coef1 = betas * self.alphas_cumprod_prev.sqrt() / rest
        self.posterior_mean_coef2 = (1 - self.alphas_cumprod_prev) * (1 - betas).sqrt() / rest
        # The variance is 0 at step 0, which has no logarithm: that of step 1 stands there (step 0 adds no
        # noise anyway).
        floor = self.posterior_variance[min(1, len(betas) - 1)]
        self.posterior_log_variance_clipped = torch.cat([floor[None], self.posterior_variance[1:]]).log()

    def __len__(self):
        return len(self.betas)

    @classmethod
    def cosine(cls, steps=50):
        return cls(cosine_betas(steps))

    def respaced(self, steps):
        """The same diffusion on `steps` of its time steps, evenly spread from the first to the last."""
        if steps == len(self):
            return self
        if not 2 <= steps < len(self):
            raise ValueError(
                f"a diffusion of {len(self)} steps cannot be sampled in {steps}: 2 to {len(self)} can"
            )
        kept = torch.linspace(0, len(self) - 1, steps, dtype=torch.float64).round().long()
        alphas = self.alphas_cumprod[kept]
        previous = torch.cat([alphas.new_ones(1), alphas[:-1]])
        return Schedule(1 - alphas / previous, self.timestep_map[kept])


def diffuse(schedule, x0, t, noise):
    """x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) noise. x0, noise [N,D]; t int64 [N]."""
    alpha_bar = schedule.alphas_cumprod  # float64, which not every device has: rounded before it is moved
    signal, spread = (
        scale.to(x0.dtype).to(x0.device, non_blocking=True)[t][:, None]
        for scale in (alpha_bar.sqrt(), (1 - alpha_bar).sqrt())
    )
    return signal * x0 + spread * noise


def loss(net, schedule, x0, z, t=None, noise=None):
    """Mean squared error of the predicted noise, per row [N]. net(x [N,D], t [N], z [N,H]) -> [N,D]."""
    t = torch.randint(len(schedule), (len(x0),), device=x0.device) if t is None else t
    noise = torch.randn_like(x0) if noise is None else noise
    times = schedule.timestep_map.to(t.device, non_blocking=True)[t]
    predicted = net(diffuse(schedule, x0, t, noise), times, z)
    return (predicted - noise).square().mean(dim=1)


def sample(field, schedule, start, step_noise, temperature=1.0):
    """Ancestral sampling, eq. 11 of Ho et al. with x0 not clipped.

    field(x [N,D], t []) -> predicted noise; start [N,D]; step_noise [N,S,D], the first entry for the last
    step of the schedule, the one of step 0 unused; temperature scales it. -> [N,D]
    """
    x = start
    for k, i in enumerate(reversed(range(len(schedule)))):
        time = torch.full((), int(schedule.timestep_map[i]), device=x.device)  # no copy to wait for
        noise = field(x, time)
        alpha_bar = float(schedule.alphas_cumprod[i])
        x0 = (x - math.sqrt(1 - alpha_bar) * noise) / math.sqrt(alpha_bar)
        x = float(schedule.posterior_mean_coef1[i]) * x0 + float(schedule.posterior_mean_coef2[i]) * x
        if i > 0:
            sigma = math.exp(0.5 * float(schedule.posterior_log_variance_clipped[i]))
            x = x + sigma * temperature * step_noise[:, k]
    return x


def ddim(field, schedule, start):
    """Deterministic sampling: DDIM (Song et al., ICLR 2021) with eta = 0.

    field(x [...,D], t []) -> predicted noise; start [...,D] -> [...,D]
    """
    x = start
    for i in reversed(range(len(schedule))):
        noise = field(x, torch.full((), int(schedule.timestep_map[i]), device=x.device))
        alpha_bar, previous = (float(a[i]) for a in (schedule.alphas_cumprod, schedule.alphas_cumprod_prev))
        x0 = (x - math.sqrt(1 - alpha_bar) * noise) / math.sqrt(alpha_bar)
        x = math.sqrt(previous) * x0 + math.sqrt(1 - previous) * noise
    return x
