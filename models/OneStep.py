"""A head that draws a token in one evaluation, distilled from a trained diffusion head.

The teacher integrates its guided ODE from noise x to a target: many evaluations, each conditional and
unconditional. The student learns the end point X(x | z, w) in one evaluation. The guidance scale w is an
input; the unconditional branch is distilled with the rest, so that the Transformer need not compute it. Two
objectives: regression on the end point, or the flow map between any two times of the path, which may also be
sampled in several evaluations. N tokens, K draws of each, D target width, H Transformer width.
"""

from dataclasses import dataclass

import torch
from torch import nn

from models.AdaLN import AdaLN_MLP, TimeEmbedding
from models.counter_rng import normal, uniform
from models.DiffMLPs import DiffMLPs_DDPM, describe_steps
from models.draws import GUIDANCE, NOISE, TIME, keyed_masks
from models.layers import Linear
from models.masking import lengths_to_mask
from models.precision import autocast_to


class OneStepHead(nn.Module):
    """X(x | z, w) = x + net(x | z, w): noise [..,N,D] -> standardised targets [..,N,D].

    scales: the (lowest, highest) guidance scale that it learns. null: it also reads the unconditional z,
    through a linear layer that starts at zero; a round then takes two passes of the Transformer.
    """

    most_steps = 1  # the most evaluations per token: see SamplingConfig.sampler_steps

    def __init__(self, target_dim, z_dim, depth, width, scales=(1.0, 4.0), null=False):
        super().__init__()
        self.scales, self.null = scales, null
        self.noise_shape = (target_dim,)
        self.net = AdaLN_MLP(target_dim, z_dim, depth, width)
        self.scale_embed = TimeEmbedding(width)
        self.null_embed = Linear(z_dim, width) if null else None
        del self.net.time_embed
        self._make_times(width)

    def _make_times(self, width):
        self.start = nn.Parameter(torch.zeros(1, width))  # embedded time of pure noise

    @classmethod
    def from_teacher(cls, head, scales=(1.0, 4.0), null=False):
        """A student of this trained head; it begins as one Euler step without guidance."""
        net = head.net
        width, target_dim = net.input_proj.weight.shape
        student = cls(target_dim, net.cond_embed.in_features, len(net.res_blocks), width, scales, null)
        weights = {k: v for k, v in net.state_dict().items() if not k.startswith("time_embed.")}
        student.net.load_state_dict(weights)
        with torch.no_grad():
            student._init_times(head)
            for layer in (student.scale_embed.mlp[2], student.null_embed):
                for p in layer.parameters() if layer else ():
                    nn.init.zeros_(p)
        return student

    def _init_times(self, head):
        ddpm_head = isinstance(head, DiffMLPs_DDPM)
        time = head.sampling_schedule.timestep_map[-1:] if ddpm_head else torch.zeros(1)
        self.start.copy_(head.net.time_embed(time.to(head.net.cond_embed.weight.device)))
        if ddpm_head:  # it predicts the noise, which has to be subtracted
            for p in self.net.final_layer.linear.parameters():
                p.neg_()

    def forward(self, x, z, w, z_null=None):
        """x [...,N,D], z [N,H], w [N] or [1], z_null [N,H] if `null` -> [...,N,D]."""
        return x + self._change(x, self.start + self.scale_embed(w), z, z_null)

    def _change(self, x, embedding, z, z_null):
        """The net's output [...,N,D]. embedding [N or 1,width] of time and scale; the other arguments are
        those of `forward`.
        """
        if self.null:
            embedding = embedding + self.null_embed(z_null)
        with autocast_to(self.net.precision, z):
            modulations = self.net.modulations(embedding, z)
        return self.net(x, None, None, modulations)

    def loss(self, teacher, rows, steps):
        """Mean squared error [K,N] to the end points that `teacher.ode_end(rows, steps)` gives."""
        with torch.no_grad():
            end = teacher.ode_end(rows, steps)
        return (self(rows.noise, rows.z, rows.w, rows.z_null) - end).square().mean(dim=-1)

    def guides(self, sampling):
        """As Head.guides: whether drawing needs the unconditional z."""
        return self.null

    def draw_with(self, sampling):
        """As Head.draw_with, by one evaluation. `resolve_sampling` checks the guidance scale."""
        embedding = self.start + self.scale_embed(self.start.new_full((1,), sampling.cfg))

        def draw(z, z_null, noise):
            x = sampling.temperature * noise
            return x + self._change(x, embedding, z, z_null)

        return draw

    def describe_sampling(self, sampling):
        """As DiffMLPs_SiT.describe_sampling."""
        return describe_steps("onestep", sampling.sampler_steps, 1)


class FlowMapHead(OneStepHead):
    """A flow map: X_{s,t}(x | z, w) = x + (t - s) net(x | s, t, z, w) moves x along the teacher's guided
    path from time s to t; noise becomes data in one evaluation or several. At s = t the net is the velocity,
    and starts as the teacher's.
    """

    most_steps = 1000

    def _make_times(self, width):
        self.embed_s, self.embed_t = TimeEmbedding(width), TimeEmbedding(width)

    def _init_times(self, head):
        for embed in (self.embed_s, self.embed_t):
            embed.load_state_dict(head.net.time_embed.state_dict())

    def velocity(self, x, s, t, z, w, z_null=None):
        """Mean velocity [...,N,D] from time s to t, each [N] or [1]; the others as in `forward`."""
        embedding = (self.embed_s(s) + self.embed_t(t)) / 2 + self.scale_embed(w)
        return self._change(x, embedding, z, z_null)

    def forward(self, x, z, w, z_null=None, times=None):
        """As OneStepHead.forward; times: (s, t), each [N] or [1]; None: from noise to data."""
        s, t = (x.new_zeros(1), x.new_ones(1)) if times is None else times
        return x + (t - s)[:, None] * self.velocity(x, s, t, z, w, z_null)

    def draw_with(self, sampling):
        """As OneStepHead.draw_with, in sampling.sampler_steps evaluations over equal time intervals."""
        n = sampling.sampler_steps

        def draw(z, z_null, noise):
            w, x = z.new_full((1,), sampling.cfg), sampling.temperature * noise
            for i in range(n):
                s, t = (x.new_full((1,), j / n) for j in (i, i + 1))
                x = self(x, z, w, z_null, (s, t))
            return x

        return draw

    def loss(self, teacher, rows, steps):
        """The Lagrangian loss [K,N] of a flow map (Boffi et al., arXiv 2505.18825), with the teacher's guided
        velocity b: at y = X_{s,t}(x_s), held fixed, both the net at s = t and d/dt X_{s,t}(x_s) should equal
        b(y, t). x_s is what the map makes of noise at time s, its input when sampled in several evaluations.
        steps: not used, no ODE is solved.
        """
        given = rows.z, rows.w, rows.z_null
        s, t = rows.times.unbind(dim=1)
        t = t.clamp(TIME_STEP, 1 - TIME_STEP)
        with torch.no_grad():
            x = self(rows.noise, *given, (torch.zeros_like(s), s))
        before, after = (self(x, *given, (s, t + step)) for step in (-TIME_STEP, TIME_STEP))
        y = ((before + after) / 2).detach()  # X_{s,t}(x_s) up to TIME_STEP^2
        with torch.no_grad():
            b = teacher.velocity(rows.z, rows.z_null, rows.w[:, None])(y, t)
        still = self.velocity(y, t, t, *given) - b
        moving = (after - before) / (2 * TIME_STEP) - b
        return 0.75 * still.square().mean(dim=-1) + 0.25 * moving.square().mean(dim=-1)


TIME_STEP = 0.01  # of the central difference for d/dt: Linear's autograd function has no forward mode
OBJECTIVES = {"regression": OneStepHead, "flow_map": FlowMapHead}


@dataclass(frozen=True)
class HeadInputs:
    """Inputs of a head: conditional and unconditional z of N tokens [N,H], guidance scales [N], K noise draws
    of each [K,N,D], the times s < t of a flow map [N,2].
    """

    z: torch.Tensor
    z_null: torch.Tensor
    w: torch.Tensor
    noise: torch.Tensor
    times: torch.Tensor


@torch.no_grad()
def hidden_inputs(mardm, tokens, keys, room, draws, scales):
    """HeadInputs for the hidden tokens of a batch, masked as in training but not corrupted.

    tokens: (latents [B,D,L], text, m_lens [B] tokens); keys [B], room: as in TrainingDraws. draws: K.
    scales: (lowest, highest) guidance scale.
    """
    latents, text, m_lens = tokens
    latents, device = latents.mT, latents.device
    inside = lengths_to_mask(m_lens, latents.shape[1])
    hidden = keyed_masks(inside, keys, room)[0]
    on_host = inside, hidden, *hidden.nonzero(as_tuple=True), keys
    inside, hidden, b, at, keys = (x.to(device, non_blocking=True) for x in on_host)
    x = torch.where(hidden[..., None], mardm.mask_latent, latents)
    both = mardm.encode_text(torch.cat([text, torch.zeros_like(text)]))
    z, z_null = (rows[b, at] for rows in mardm.conditions(x, both, inside, None, guide=True))
    low, high = scales
    w = low + (high - low) * uniform(keys[b], GUIDANCE, (1,), at)[:, 0]
    noise = normal(keys[b], NOISE, (draws, mardm.target_dim), at).transpose(0, 1)
    times = uniform(keys[b], TIME, (2,), at).sort(dim=1).values
    return HeadInputs(z, z_null, w.to(z), noise.to(z), times.to(z))
