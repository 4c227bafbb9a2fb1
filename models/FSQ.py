"""Finite Scalar Quantization (Mentzer et al., 2023, arXiv 2309.15505)."""

import math

import torch
from torch import nn

EPS = 1e-3
MOST_LEVELS = 1000  # beyond, the bound's margin of EPS reaches the next level
MOST_CODES = 10**8  # of a grid to train: training keeps a counter for every code


class FSQ(nn.Module):
    """Bounds each of d coordinates with tanh and rounds it to one of `levels[i]` values in [-1, 1].

    Section 3.1: h = (L-1)(1+eps)/2; o = 0 for odd L, 1/2 for even; s = atanh(o/h); bound(z) = h tanh(z + s) -
    o; z_q = round(bound(z)) / floor(L/2), with a straight-through gradient. The shift s only puts z = 0 on
    code 0; it is the o subtracted after the tanh that gives an even L all its values.
    """

    def __init__(self, levels):
        super().__init__()
        levels = [int(level) for level in levels]
        if not levels or min(levels) < 3 or max(levels) > MOST_LEVELS:
            raise ValueError(
                f"FSQ levels {levels}: each must be from 3 (for 2, atanh(o/h) has no value) to {MOST_LEVELS}"
            )
        self.levels = levels
        L = torch.tensor(levels, dtype=torch.float32)
        self.codebook_size = math.prod(levels)
        self._constant("half_width", (L - 1) * (1 + EPS) / 2)  # h
        self._constant("offset", (L % 2 == 0).float() / 2)  # o
        self._constant("shift", torch.atanh(self.offset / self.half_width))  # s
        self._constant("scale", (L // 2))  # floor(L/2), the distance from 0 to -1 in steps
        self._constant("top", ((L - 1) // 2) / (L // 2))  # the largest value: below 1 for even L
        places = torch.tensor([1, *levels[:-1]]).cumprod(0)
        self.register_buffer("places", places, persistent=False)  # mixed radix, first dimension fastest
        self.register_buffer("_levels", torch.tensor(levels), persistent=False)

    def _constant(self, name, value):
        self.register_buffer(name, value, persistent=False)

    @property
    def dim(self):
        return len(self.levels)

    def forward(self, z):
        """z [...,d] -> z_q [...,d] on the grid. float32 also under autocast; float64 stays float64."""
        z = z if z.dtype == torch.float64 else z.float()
        bounded = self.half_width.to(z) * torch.tanh(z + self.shift.to(z)) - self.offset.to(z)
        rounded = bounded + (bounded.round() - bounded).detach()
        return rounded / self.scale.to(z)

    def snap(self, coords):
        """Nearest grid point of any real coordinates [...,d]; each dimension clamped to its own range."""
        steps = (coords.clamp(min=-1) * self.scale.to(coords)).round()
        return torch.minimum(steps / self.scale.to(coords), self.top.to(coords))

    def codes_to_indices(self, codes):
        """Grid points [...,d] -> int64 [...]."""
        return (self.codes_to_digits(codes) * self.places).sum(dim=-1)

    get_indices = codes_to_indices

    def indices_to_codes(self, indices):
        """int64 [...] -> grid points [...,d] float32. Exact inverse of codes_to_indices."""
        return self.digits_to_codes(indices.unsqueeze(-1) // self.places % self._levels)

    def codes_to_digits(self, codes):
        """Grid points [...,d] -> the level of each coordinate, int64 [...,d] from 0."""
        return ((codes.float() + 1) * self.scale).round().long()

    def digits_to_codes(self, digits):
        """Exact inverse of codes_to_digits."""
        return (digits - self.scale) / self.scale
