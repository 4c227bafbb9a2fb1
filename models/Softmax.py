"""A head that classifies: a distribution over the levels of each grid coordinate, instead of diffusion.

The control for diffusion on the grid: same Transformer, same network, cross-entropy. N tokens, d coordinates,
H Transformer width.
"""

import torch
from torch import nn

from models.AdaLN import AdaLN_MLP
from models.FSQ import FSQ
from models.Head import Head
from models.layers import Linear
from models.precision import autocast_to

COORDINATES = ("sequential", "independent")


class SoftmaxHead(Head):
    """p(c_1..c_d | z) over the levels of an FSQ grid, from one evaluation of the network.

    independent: the product of p(c_i | z). sequential: of p(c_i | c_1..c_(i-1), z), by a hidden state h to
    which every coordinate adds an embedding, logits_i = V_i silu(h + sum_(j<i) E_j[c_j]): NADE (Larochelle &
    Murray, AISTATS 2011), given z. Both begin uniform.
    """

    noisy = False  # trains on targets as they are, with nothing random
    samplers = ("softmax",)

    def __init__(self, target_dim, z_dim, depth, width, levels, coordinates="sequential"):
        super().__init__()
        if levels is None or len(levels) != target_dim:
            raise ValueError(f"a Softmax head needs the levels of a grid of {target_dim} dimensions")
        self.grid = FSQ(levels)
        self.noise_shape = (target_dim,)
        self.net = AdaLN_MLP(1, z_dim, depth, width, out_dim=width)
        del self.net.time_embed  # there is no time
        self.classes = nn.ModuleList(Linear(width, n) for n in levels)
        earlier = levels[:-1] if coordinates == "sequential" else ()
        self.earlier = nn.ModuleList(nn.Embedding(n, width) for n in earlier)
        for layer in self.classes:
            nn.init.zeros_(layer.bias)
        for table in self.earlier:
            nn.init.zeros_(table.weight)

    def loss(self, targets, z, t=None, noise=None):
        """Grid points [N,d], conditions [N,H] -> -log p(targets | z) [N]; nothing is drawn."""
        hidden, losses = self._hidden(z), []
        for i, digits in enumerate(self.grid.codes_to_digits(targets).unbind(-1)):
            losses.append(nn.functional.cross_entropy(self._logits(i, hidden), digits, reduction="none"))
            hidden = self._given(i, hidden, digits)
        return torch.stack(losses).sum(dim=0)

    def sample(self, z, z_null, noise, sampling):
        """Conditions [N,H], unconditional ones [N,H] or None, normal noise [N,d] -> grid points [N,d].

        Inverse transform sampling of each coordinate; its uniform number is the normal distribution function
        of the noise. Logits are guided, null + cfg (conditional - null), and divided by the temperature; at 0
        the likeliest class is taken.
        """
        guided, drawn = self.guides(sampling), []
        hidden, damage = self._hidden(torch.cat([z, z_null]) if guided else z), 0
        for i, u in enumerate(torch.special.ndtr(noise).unbind(-1)):
            logits = self._logits(i, hidden)
            if guided:
                cond, null = logits.chunk(2)
                logits = torch.lerp(null, cond, sampling.cfg)
            digits = pick(logits, u, sampling.temperature)
            drawn.append(digits)
            damage = damage + 0 * logits.sum(dim=-1, keepdim=True)  # NaN stays NaN, not a class
            hidden = self._given(i, hidden, digits.repeat(2) if guided else digits)
        return self.grid.digits_to_codes(torch.stack(drawn, dim=-1)).to(z.dtype) + damage

    def describe_sampling(self, sampling):
        """As DiffMLPs_SiT.describe_sampling."""
        return "softmax: 1 evaluation a draw"

    def _hidden(self, z):
        """Conditions [N,H] -> the hidden state [N,width] before the first coordinate."""
        with autocast_to(self.net.precision, z):
            modulations = self.net.modulations(0, z)
        return self.net(z.new_ones(len(z), 1), None, None, modulations)

    def _logits(self, i, hidden):
        return self.classes[i](nn.functional.silu(hidden))

    def _given(self, i, hidden, digits):
        """The hidden state [N,width] after coordinate i took the levels `digits` [N]."""
        return hidden + self.earlier[i](digits) if i < len(self.earlier) else hidden


def pick(logits, u, temperature):
    """Logits [N,classes], uniform numbers u [N] -> classes int64 [N], by inverse transform sampling."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits - logits.amax(dim=-1, keepdim=True)  # no overflow at small temperatures
    reached = (logits / temperature).softmax(dim=-1).cumsum(dim=-1)[:, :-1]
    return (u[:, None] >= reached).sum(dim=-1)
