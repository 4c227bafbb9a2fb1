"""The diffusion head: an AdaLN MLP on single tokens (MAR, Li et al., NeurIPS 2024), its losses and samplers.

Rows: N tokens, x [N,D] noisy targets, t [N] times, z [N,H] conditions from the Transformer. Names of modules
follow the published checkpoints of MARDM, which load strictly.
"""

from functools import partial

import torch
from torch import nn

from diffusions import ddpm, flow
from diffusions.samplers import EVALUATIONS, guided, integrate, solver_times
from models.layers import Linear, modulation, sinusoid_frequencies
from models.precision import autocast_to


class DiffMLPs_SiT(nn.Module):
    """Velocity prediction on the linear path."""

    def __init__(self, target_dim, z_dim, depth, width):
        super().__init__()
        self.net = AdaLN_MLP(target_dim, z_dim, depth, width)
        self.noise_shape = (target_dim,)  # what one token's draw needs

    def reschedule(self, train_steps=None, sample_steps=None):
        """As DiffMLPs_DDPM.reschedule: nothing to do, time is continuous and SamplingConfig has the steps."""

    def times(self, u):
        """Uniform numbers in (0,1) [N] -> the times to train at."""
        return u

    def loss(self, targets, z, t=None, noise=None):
        """Clean targets [N,D], conditions [N,H] -> [N]."""
        return flow.loss(self.net, targets, z, t, noise)

    def sample(self, z, z_null, noise, sampling):
        """Conditions [N,H], those without text [N,H] or None, noise [N,*noise_shape] -> targets [N,D].

        sampling: see `models.MARDM.SamplingConfig`.
        """
        times = solver_times(sampling.sampler, sampling.sampler_steps, noise)
        field = guided(at_times(self.net, times, z), z, z_null, sampling.cfg)
        return integrate(field, sampling.temperature * noise, sampling.sampler, sampling.sampler_steps)

    def guides(self, sampling):
        """Whether a draw needs conditions without text."""
        return sampling.cfg != 1

    def cost(self, sampling):
        """The solver and its evaluations of the net, as text."""
        if sampling.sampler not in EVALUATIONS:
            return f"{sampling.sampler}: as many evaluations as its tolerance takes"
        return steps_cost(sampling.sampler, sampling.sampler_steps, EVALUATIONS[sampling.sampler])


class DiffMLPs_DDPM(nn.Module):
    """Noise prediction on a cosine schedule; 50 steps to train and to sample, as MARDM builds it."""

    def __init__(self, target_dim, z_dim, depth, width):
        super().__init__()
        self.net = AdaLN_MLP(target_dim, z_dim, depth, width)
        self.target_dim = target_dim
        self.reschedule()

    def reschedule(self, train_steps=50, sample_steps=50):
        """Diffuse over `train_steps`, sample over `sample_steps` of them. No weight depends on either."""
        self.schedule = ddpm.Schedule.cosine(train_steps)
        self.sampling = self.schedule.respaced(sample_steps)
        self.noise_shape = (1 + sample_steps, self.target_dim)  # the start, then one draw per step

    def times(self, u):
        """Uniform numbers in (0,1) [N] -> the steps to train at."""
        return (u * len(self.schedule)).long()

    def loss(self, targets, z, t=None, noise=None):
        """Clean targets [N,D], conditions [N,H] -> [N]."""
        return ddpm.loss(self.net, self.schedule, targets, z, t, noise)

    def sample(self, z, z_null, noise, sampling):
        """As DiffMLPs_SiT.sample; sampling.temperature scales the noise of the steps."""
        times = self.sampling.timestep_map.flip(0).to(z.device)
        field = guided(at_times(self.net, times, z), z, z_null, sampling.cfg)
        return ddpm.sample(field, self.sampling, noise[:, 0], noise[:, 1:], sampling.temperature)

    def guides(self, sampling):
        """As DiffMLPs_SiT.guides."""
        return sampling.cfg != 1

    def cost(self, sampling):
        """As DiffMLPs_SiT.cost."""
        return steps_cost("DDPM", len(self.sampling), 1)


def steps_cost(solver, steps, evaluations):
    counted = (steps, "step"), (steps * evaluations, "evaluation")
    steps_taken, asked = (f"{n} {word}{'s' * (n > 1)}" for n, word in counted)
    return f"{solver}, {steps_taken}: {asked} a token"


class AdaLN_MLP(nn.Module):
    """Residual MLP whose layer norms are modulated by time and condition (adaLN-Zero, DiT, Peebles & Xie,
    2023).
    """

    precision = torch.float32  # or bfloat16: of all but the time's embedding and the residual stream

    def __init__(self, target_dim, z_dim, depth, width):
        super().__init__()
        self.time_embed = TimeEmbedding(width)
        self.cond_embed = Linear(z_dim, width)
        self.input_proj = Linear(target_dim, width)
        self.res_blocks = nn.ModuleList(AdaLN_Block(width) for _ in range(depth))
        self.final_layer = FinalLayer(width, target_dim)
        self._initialise()

    def forward(self, x, t, z, modulations=None):
        """x [...,N,D], t [N], z [N,H] -> [...,N,D], of x's dtype in any precision.

        modulations: those of t and z, where the caller has them; neither of the two is read then.
        """
        time = self.time_embed(t) if modulations is None else None
        with autocast_to(self.precision, x):
            h = self.input_proj(x).to(x.dtype)
            modulations = modulations or self.modulations(time, z)
            for layer, its_own in zip((*self.res_blocks, self.final_layer), modulations):
                h = layer(h, its_own)
            return h.to(x.dtype)

    def modulations(self, time, z):
        """All that does not depend on x, layer after layer: [...,N,parts * width].

        time [...,N or 1,width]: embeddings of times; z [N,H].
        """
        c = nn.functional.silu(time + self.cond_embed(z))
        return (layer.adaLN_modulation(c) for layer in (*self.res_blocks, self.final_layer))

    def _initialise(self):
        """Xavier for linear layers; modulation and output start at zero, so that every block starts as
        identity.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for layer in (self.time_embed.mlp[0], self.time_embed.mlp[2]):
            nn.init.normal_(layer.weight, std=0.02)
        for block in (*self.res_blocks, self.final_layer):
            nn.init.zeros_(block.adaLN_modulation[1].weight)
        nn.init.zeros_(self.final_layer.linear.weight)


def at_times(net, times, z, most=512):
    """`net` for a solver that asks at these times [T], in this order, for the same conditions at each.

    All that does not depend on x is computed at once, at the first call: 3/5 of the weights are read once
    and not T times. Where T times the rows of z are more than `most`, reading weights takes no time, and
    `net` itself is returned; so it is where it was compiled, and for times that are not known (None).
    """
    if times is None or len(times) * len(z) > most or net._compiled_call_impl:
        return net
    left = []

    def prepared(x, t, z):
        if not left:
            time = net.time_embed(times)[:, None]
            with autocast_to(net.precision, z):
                left.extend(zip(*net.modulations(time, z)))
        return net(x, t, z, left.pop(0))

    return prepared


def timestep_embedding(t, dim):
    """Sinusoids of t [N] -> [N,dim], cosines first; a last zero column where dim is odd."""
    angles = t[:, None] * sinusoid_frequencies(dim, t.device).to(t.dtype)
    return nn.functional.pad(torch.cat([angles.cos(), angles.sin()], dim=1), (0, dim % 2))


class TimeEmbedding(nn.Module):
    """[N] -> [N,width]. SiT: times in [0,1]; DDPM: step numbers."""

    def __init__(self, width, frequencies=256):
        super().__init__()
        self.frequencies = frequencies
        self.mlp = nn.Sequential(Linear(frequencies, width), nn.SiLU(), Linear(width, width))

    def forward(self, t):
        dtype = self.mlp[0].weight.dtype
        t = t if t.is_floating_point() else t.to(dtype)
        return self.mlp(timestep_embedding(t, self.frequencies).to(dtype))


class AdaLN_Block(nn.Module):
    """x + gate * mlp(norm(x) (1 + scale) + shift)."""

    def __init__(self, width):
        super().__init__()
        self.in_ln = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(Linear(width, width), nn.SiLU(), Linear(width, width))
        self.adaLN_modulation = modulation(width, 3)

    def forward(self, x, modulation):
        shift, scale, gate = modulation.chunk(3, dim=-1)
        return x + gate * self.mlp(torch.addcmul(shift, self.in_ln(x), 1 + scale))


class FinalLayer(nn.Module):
    def __init__(self, width, target_dim):
        super().__init__()
        self.norm_final = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.linear = Linear(width, target_dim)
        self.adaLN_modulation = modulation(width, 2)

    def forward(self, x, modulation):
        shift, scale = modulation.chunk(2, dim=-1)
        return self.linear(torch.addcmul(shift, self.norm_final(x), 1 + scale))


HEADS = {"SiT": DiffMLPs_SiT, "DDPM": DiffMLPs_DDPM}
# depth x width of the head for every size of generator
HEAD_SIZES = {"XS": (4, 256), "S": (8, 512), "B": (12, 768), "L": (12, 1280), "XL": (16, 1792)}
DiffMLPs_models = {
    f"{head}-{size}": partial(cls, depth=depth, width=width)
    for head, cls in HEADS.items()
    for size, (depth, width) in HEAD_SIZES.items()
}


def diffmlps_sit_xl_fsq(fsq_dim=6, z_dim=1024):
    """The recommended head: SiT, XL, on the grid coordinates of FSQ_AE_High."""
    return DiffMLPs_models["SiT-XL"](target_dim=fsq_dim, z_dim=z_dim)
