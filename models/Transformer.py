"""The blocks of MARDM's Transformer. Names follow the published checkpoints.

B clips, L tokens, H width; S states of a text: one that is always there, then one for each word piece.
"""

import torch
from torch import nn

from models.layers import Linear, modulation, side_by_side, sinusoid_frequencies, sinusoid_table


class InputProcess(nn.Module):
    """Latents [B,L,D] -> [B,L,H]."""

    def __init__(self, ae_dim, latent_dim):
        super().__init__()
        self.poseEmbedding = Linear(ae_dim, latent_dim)

    def forward(self, x):
        return self.poseEmbedding(x)


class PositionalEncoding(nn.Module):
    """Adds sinusoidal positions to [B,L,H]. The table is [5000,1,H] as in published checkpoints; released
    weights leave it out, since it is a constant.
    """

    def __init__(self, dim, dropout, max_len=5000):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("pe", sinusoid_table(max_len, dim)[:, None])

    def _load_from_state_dict(self, state_dict, prefix, *rest):
        state_dict.setdefault(f"{prefix}pe", self.pe)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, x):
        return self.dropout(x + self.pe[: x.shape[1], 0])


def take(x, tokens):
    """x [B,L,H], int64 [B,R] -> those tokens of each clip [B,R,H]."""
    return x.gather(1, tokens[..., None].expand(-1, -1, x.shape[-1]))


def split_heads(x, heads):
    """[B,L,H] -> [B,heads,L,H / heads]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention over real tokens.

    relative_bias [heads, 2 REACH + 1], if any: a learned term of the logits for each offset of key to
    query, from -REACH to REACH (those beyond share the last). Published checkpoints have none.
    """

    REACH = 64  # tokens; a motion has at most 49, but --max_motion_length may train on longer ones

    def __init__(self, dim, heads, dropout):
        super().__init__()
        self.heads, self.p = heads, dropout
        self.key, self.query, self.value = Linear(dim, dim), Linear(dim, dim), Linear(dim, dim)
        self.proj = Linear(dim, dim)
        self.drop = nn.Dropout(dropout)
        self.register_parameter("relative_bias", None)

    @property
    def offsets(self):
        """The relative position that each head attends to at initialisation: -1, +1, -2, +2, ..."""
        return [(head // 2 + 1) * (-1 if head % 2 == 0 else 1) for head in range(self.heads)]

    def add_relative_bias(self, logit=6.0):
        """Give every head a bias: `logit` at its offset, 0 elsewhere.

        A logit of 6 gives it 0.9 of the attention among 49 tokens. Large optimizer steps undo
        `init_neighbour_attention`, since queries and keys serve every logit; a bias serves one offset and
        moves by about the learning rate per step.
        """
        bias = torch.zeros(self.heads, 2 * self.REACH + 1)
        bias[range(self.heads), [self.REACH + offset for offset in self.offsets]] = logit
        self.relative_bias = nn.Parameter(bias)

    @torch.no_grad()
    def init_neighbour_attention(self, logit=12.0):
        """Initialise head k to attend to a fixed relative offset (-1, +1, -2, +2, ...) with about this logit.

        Small models hardly leave the usual initialisation, at which all tokens get the same attention. The
        sinusoids of position p + n are those of p, rotated (Vaswani et al., 2017, 3.5): queries start with
        this rotation, keys without it.
        """
        dim = self.query.in_features
        d = dim // self.heads
        gain = (logit / d**0.5) ** 0.5
        used = torch.arange(d // 2) * max(self.heads // 4, 1)
        columns = torch.stack([2 * used, 2 * used + 1], dim=1).flatten()
        for offset, query, key in zip(self.offsets, self.query.weight.split(d), self.key.weight.split(d)):
            angle = offset * sinusoid_frequencies(dim)[used]
            sin, cos = angle.sin(), angle.cos()
            turns = torch.stack([cos, sin, -sin, cos], dim=1).view(-1, 2, 2)
            query[:, columns] += gain * torch.block_diag(*turns)
            key[:, columns] += gain * torch.eye(d)

    def forward(self, x, inside, positions=None, queries=None):
        """x [B,L,H], inside bool [B,L], positions int64 [B,L] (0, 1, ... if None) -> [B,L,H].

        queries int64 [B,R]: compute only these tokens' outputs, which still attend to all -> [B,R,H].
        """
        if queries is None:
            q, k, v = side_by_side(x, self.query, self.key, self.value)
        else:
            k, v = side_by_side(x, self.key, self.value)
            q = self.query(take(x, queries))
        q, k, v = (split_heads(rows, self.heads) for rows in (q, k, v))
        mask, p = self._mask(inside, positions, queries, q.dtype), self.p if self.training else 0.0
        y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p)
        return self.drop(self.proj(y.transpose(1, 2).flatten(2)))

    def weights(self, x, inside, positions=None):
        """Attention weights [B,heads,L,L], query by key. Arguments as in `forward`."""
        q, k = (split_heads(layer(x), self.heads) for layer in (self.query, self.key))
        bias = self._bias(x.shape[1], positions, None)
        logits = q @ k.mT / q.shape[-1] ** 0.5 + (0 if bias is None else bias)
        return logits.float().masked_fill(~inside[:, None, None], -torch.inf).softmax(dim=-1)

    def _mask(self, inside, positions, queries, dtype):
        bias = self._bias(inside.shape[1], positions, queries)
        if bias is None:
            return inside[:, None, None]
        return bias.to(dtype).masked_fill(~inside[:, None, None], -torch.inf)

    def _bias(self, L, positions, queries):
        """The bias of each logit [B or 1,heads,L or R,L]; None without a relative bias."""
        if self.relative_bias is None:
            return None
        if positions is None:
            positions = torch.arange(L, device=self.relative_bias.device)[None]
        own = positions if queries is None else positions.expand(len(queries), -1).gather(1, queries)
        offsets = positions[:, None] - own[:, :, None]  # key minus query [B,R,L]
        return self.relative_bias[:, offsets.clamp(-self.REACH, self.REACH) + self.REACH].transpose(0, 1)


class FeedForward(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.fc1, self.fc2 = Linear(dim, hidden), Linear(hidden, dim)

    def forward(self, x):
        return self.fc2(nn.functional.gelu(self.fc1(x), approximate="tanh"))


class CrossAttention(nn.Module):
    """Motion tokens attend to the states of a text; adds nothing after `zero_init_output`."""

    def __init__(self, dim, heads, dropout):
        super().__init__()
        self.heads, self.p = heads, dropout
        self.norm = nn.LayerNorm(dim)
        self.key, self.query, self.value = Linear(dim, dim), Linear(dim, dim), Linear(dim, dim)
        self.proj = Linear(dim, dim)
        self.drop = nn.Dropout(dropout)

    def zero_init_output(self):
        """Zero the output, so that a block starts as one that reads the pooled text alone."""
        nn.init.zeros_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def keys_values(self, states):
        """States [B,S,H] -> keys, values [B,heads,S,H / heads]: the same in every round of a motion."""
        return tuple(split_heads(rows, self.heads) for rows in side_by_side(states, self.key, self.value))

    def forward(self, x, words):
        """x [B,L,H]; words: (keys, values, bool [B,S]: which states are not padding) -> [B,L,H]."""
        k, v, present = words
        p = self.p if self.training else 0.0
        q, mask = split_heads(self.query(self.norm(x)), self.heads), present[:, None, None]
        y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p)
        return self.drop(self.proj(y.transpose(1, 2).flatten(2)))


class Block(nn.Module):
    """A Transformer block modulated by the text (adaLN-Zero); `cross`, if not None, attends to its words."""

    def __init__(self, dim, heads, ff, dropout, words=False):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.norm2 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.attn = Attention(dim, heads, dropout)
        self.mlp = FeedForward(dim, ff)
        self.adaLN_modulation = modulation(dim, 6)
        self.cross = CrossAttention(dim, heads, dropout) if words else None

    def forward(self, x, modulation, inside, positions=None, words=None, queries=None):
        """x [B,L,H], modulation [B,1,6H] = adaLN_modulation(silu(condition)), inside bool [B,L], positions
        int64 [B,L], words as in `CrossAttention.forward` -> [B,L,H], or [B,R,H] of the tokens `queries`.
        """
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6, dim=-1)
        attended = self.attn(self.norm1(x) * (1 + scale1) + shift1, inside, positions, queries=queries)
        x = (x if queries is None else take(x, queries)) + gate1 * attended
        if self.cross is not None:
            x = x + self.cross(x, words)
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)
