"""A head that draws a token in one evaluation, distilled from a trained diffusion head.

The teacher carries noise x to a target along its guided equation, many evaluations of two rows each. The
student learns where that ends, X(x | z, w): one evaluation of one row. The guidance scale w is an input; what
the condition without text would have said is learned as well, so that the Transformer is not asked for it.
N tokens, K draws of each, D target width, H Transformer width.
"""

from dataclasses import dataclass

import torch
from torch import nn

from diffusions import ddpm
from diffusions.samplers import guided, integrate
from models.AdaLN import AdaLN_MLP, TimeEmbedding
from models.counter_rng import normal, uniform
from models.DiffMLPs import DiffMLPs_DDPM
from models.draws import GUIDANCE, NOISE
from models.layers import Linear
from models.masking import lengths_to_mask
from models.precision import autocast_to


class OneStepHead(nn.Module):
    """X(x | z, w) = x + net(x | z, w): noise [..,N,D] -> standardised targets [..,N,D].

    scales: the guidance scales (lowest, highest) that it learns. null: it also sees the condition without
    text, through a linear layer that starts at zero, and a round takes two passes of the Transformer.
    """

    def __init__(self, target_dim, z_dim, depth, width, scales=(1.0, 4.0), null=False):
        super().__init__()
        self.scales, self.null = scales, null
        self.noise_shape = (target_dim,)
        self.net = AdaLN_MLP(target_dim, z_dim, depth, width)
        self.start = nn.Parameter(torch.zeros(1, width))  # embedding of the time at which noise is
        self.scale_embed = TimeEmbedding(width)
        self.null_embed = Linear(z_dim, width) if null else None
        del self.net.time_embed  # there is one time

    @classmethod
    def beside(cls, head, scales=(1.0, 4.0), null=False):
        """A student of this trained head; it begins as one Euler step without guidance."""
        net = head.net
        width, target_dim = net.input_proj.weight.shape
        student = cls(target_dim, net.cond_embed.in_features, len(net.res_blocks), width, scales, null)
        weights = {k: v for k, v in net.state_dict().items() if not k.startswith("time_embed.")}
        student.net.load_state_dict(weights)
        ddpm_head = isinstance(head, DiffMLPs_DDPM)
        time = head.sampling.timestep_map[-1:] if ddpm_head else torch.zeros(1)
        with torch.no_grad():
            student.start.copy_(net.time_embed(time.to(net.cond_embed.weight.device)))
            for layer in (student.scale_embed.mlp[2], student.null_embed):
                for p in layer.parameters() if layer else ():
                    nn.init.zeros_(p)
            if ddpm_head:  # it predicts the noise, which is to be taken away
                for p in student.net.final_layer.linear.parameters():
                    p.neg_()
        return student

    def forward(self, x, z, w, z_null=None):
        """x [...,N,D], z [N,H], w [N] or [1], z_null [N,H] if `null` -> [...,N,D]."""
        embedding = self.start + self.scale_embed(w)
        if self.null:
            embedding = embedding + self.null_embed(z_null)
        with autocast_to(self.net.precision, z):
            modulations = list(self.net.modulations(embedding, z))
        return x + self.net(x, None, None, modulations)

    def guides(self, sampling):
        """Whether a draw needs conditions without text."""
        return self.null

    def sample(self, z, z_null, noise, sampling):
        """As DiffMLPs_SiT.sample, by one evaluation; see `models.sampling.settle` for the scales."""
        return self(sampling.temperature * noise, z, z.new_full((1,), sampling.cfg), z_null)

    def cost(self, sampling):
        return "onestep: 1 evaluation a token"


@dataclass(frozen=True)
class Rows:
    """What a head is asked: conditions of N tokens with and without text [N,H], guidance scales [N], K noise
    draws of each [K,N,D].
    """

    z: torch.Tensor
    z_null: torch.Tensor
    w: torch.Tensor
    noise: torch.Tensor


@torch.no_grad()
def hidden_rows(mardm, tokens, keys, room, draws, scales):
    """What a head is asked for the hidden tokens of a batch, masked as in training, not corrupted. -> Rows

    tokens: (latents [B,D,L], text, m_lens [B] tokens); keys [B], room: as those of TrainingDraws. draws: K.
    scales: (lowest, highest) guidance scale.
    """
    latents, text, m_lens = tokens
    latents, device = latents.mT, latents.device
    inside = lengths_to_mask(m_lens, latents.shape[1])
    hidden = mardm._masks(inside, keys, room)[0]
    (b, at), (inside, hidden) = hidden.nonzero(as_tuple=True), (mask.to(device) for mask in (inside, hidden))
    x = torch.where(hidden[..., None], mardm.mask_latent, latents) * inside[..., None]
    both = mardm.read(torch.cat([text, torch.zeros_like(text)]))
    z, z_null = (rows[hidden] for rows in mardm._conditions(x, both, inside, None, guide=True))
    low, high = scales
    w = low + (high - low) * uniform(keys[b], GUIDANCE, (1,), at)[:, 0]
    noise = normal(keys[b], NOISE, (draws, mardm.target_dim), at).transpose(0, 1)
    return Rows(z, z_null, w.to(z), noise.to(z))


@torch.no_grad()
def ode_end(head, rows, steps):
    """Where the trained head carries noise: [K,N,D]. steps: of midpoint; a DDPM head takes its own (DDIM)."""
    field = guided(head.net, rows.z, rows.z_null, rows.w[:, None])
    if isinstance(head, DiffMLPs_DDPM):
        return ddpm.ddim(field, head.sampling, rows.noise)
    return integrate(field, rows.noise, "midpoint", steps)
