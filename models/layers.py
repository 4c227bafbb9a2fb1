"""Layers that the Transformer and the diffusion head share."""

import math

import torch
from torch import nn

from models import onednn


class Linear(nn.Linear):
    """nn.Linear; float32 on a CPU goes through oneDNN, forwards and backwards (models/onednn.py)."""

    def forward(self, x):
        eager_float32 = x.dtype == torch.float32 and x.numel() and not torch.compiler.is_compiling()
        if eager_float32 and onednn.usable(self) and not torch.is_autocast_enabled("cpu"):
            return onednn.LinearFunction.apply(x, self.weight, self.bias)
        return super().forward(x)


def side_by_side(x, *layers):
    """The outputs [...,out_i] of several linear layers for one input x [...,in]: one matrix product where
    their weights are packed for inference (`InferenceWeights`).
    """
    packed = layers[0].__dict__.get("side_by_side")
    return packed(x, *layers) if packed else [layer(x) for layer in layers]


def modulation(width, parts):
    """adaLN's linear layer: silu(condition) [...,width] -> shifts, scales, gates [...,parts * width].

    All modulations of a network share one condition, so its SiLU is applied once, outside; the Identity in
    its place keeps the parameter names of published checkpoints (adaLN_modulation.1.weight).
    """
    return nn.Sequential(nn.Identity(), Linear(width, parts * width))


def sinusoid_table(length, dim):
    """Sinusoids of the positions 0, 1, ... (Vaswani et al., 2017), sine and cosine in turns: [length,dim]."""
    angle = torch.arange(length, dtype=torch.float32)[:, None] * sinusoid_frequencies(dim)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


def sinusoid_frequencies(dim, device=None):
    """Frequencies of a sinusoidal embedding of width `dim`, fastest first: float32 [dim // 2]."""
    half = dim // 2
    return torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=device) / half)
