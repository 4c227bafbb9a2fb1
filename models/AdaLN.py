"""The network of all heads: an AdaLN MLP on single tokens (MAR, Li et al., NeurIPS 2024)."""

import torch
from torch import nn

from models.layers import Linear, modulation, side_by_side, sinusoid_frequencies
from models.precision import autocast_to


class AdaLN_MLP(nn.Module):
    """Residual MLP whose layer norms are modulated by time and condition (adaLN-Zero, DiT, Peebles & Xie,
    2023).
    """

    precision = torch.float32  # or bfloat16: of all but the time embedding and the residual stream

    def __init__(self, target_dim, z_dim, depth, width, out_dim=None):
        super().__init__()
        self.time_embed = TimeEmbedding(width)
        self.cond_embed = Linear(z_dim, width)
        self.input_proj = Linear(target_dim, width)
        self.res_blocks = nn.ModuleList(AdaLN_Block(width) for _ in range(depth))
        self.final_layer = FinalLayer(width, out_dim or target_dim)
        self._initialise()

    def forward(self, x, t, z, modulations=None):
        """x [...,N,D], t [N], z [N,H] -> [...,N,out_dim or D], in x's dtype whatever the precision.

        modulations: the result of `modulations` for t and z, if precomputed; t and z are then ignored.
        """
        time = self.time_embed(t) if modulations is None else None
        with autocast_to(self.precision, x):
            h = self.input_proj(x).to(x.dtype)
            modulations = modulations or self.modulations(time, z)
            for layer, layer_modulations in zip((*self.res_blocks, self.final_layer), modulations):
                h = layer(h, layer_modulations)
            return h.to(x.dtype)

    def modulations(self, time, z):
        """Each layer's shift, scale and gate, which do not depend on x: [...,N,parts * width].

        time [...,N or 1,width]: embedded times; z [N,H].
        """
        c = nn.functional.silu(time + self.cond_embed(z))
        return side_by_side(c, *(layer.adaLN_modulation[1] for layer in (*self.res_blocks, self.final_layer)))

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


def timestep_embedding(t, dim):
    """Sinusoids of t [N] -> [N,dim], cosines first; a last zero column where dim is odd."""
    angles = t[:, None] * sinusoid_frequencies(dim, t.device).to(t.dtype)
    return nn.functional.pad(torch.cat([angles.cos(), angles.sin()], dim=1), (0, dim % 2))


class TimeEmbedding(nn.Module):
    """Embed numbers [N] -> [N,width]: times in [0,1] (SiT), step numbers (DDPM) or guidance scales."""

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
