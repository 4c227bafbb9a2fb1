"""Texts as a generator takes them. B clips, E text width, W word pieces, H Transformer width.

Texts are their pooled vectors [B,E], or these and the encoder's word states in one tensor [B,1+W,E]: row 0
is the pooled vector, a row of zeros is padding, and a text of zeros alone is no text (unconditional).
"""

from dataclasses import dataclass

import torch
from torch import nn

from models.counter_rng import uniform
from models.draws import CONDITION, POOLED
from models.layers import Linear
from models.Transformer import Attention, FeedForward, PositionalEncoding


@dataclass(frozen=True)
class TextConditions:
    """What the Transformer's blocks need of a text: computed once, for all rounds of a motion."""

    modulations: list  # for each block [B,1,6H]
    words: list  # for each block: (keys, values, which are not padding); None without words


def pooled_text(text):
    """The pooled vector [B,E] of a text [B,E] or [B,1+W,E]."""
    return text if text.dim() == 2 else text[:, 0]


def drop_texts(text, keys, share, pooled_share):
    """Replace a share of the texts by zeros, to train the unconditional branch of guidance. Where there are
    words, also a share of the pooled vectors, lest the model rely on these and ignore the words' order.
    """
    keep = uniform(keys, CONDITION, (1,)) >= share
    if text.dim() == 2:
        return text * keep
    pooled = uniform(keys, POOLED, (1,)) >= pooled_share
    return torch.cat([text[:, :1] * pooled[..., None], text[:, 1:]], dim=1) * keep[..., None]


class RefinerLayer(nn.Module):
    """A plain Transformer layer over the states of a text."""

    def __init__(self, dim, heads, ff, dropout):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = Attention(dim, heads, dropout)
        self.mlp = FeedForward(dim, ff)

    def forward(self, x, inside):
        """x [B,S,H], inside bool [B,S] -> [B,S,H]."""
        x = x + self.attn(self.norm1(x), inside)
        return x + self.mlp(self.norm2(x))


class TextReader(nn.Module):
    """A frozen encoder's word states -> states of width H, with positions in the sentence added.

    The first state stands for no word: an absent text has only this one.
    """

    def __init__(self, text_dim, dim, heads, ff, layers, dropout):
        super().__init__()
        self.norm, self.proj = nn.LayerNorm(text_dim), Linear(text_dim, dim)
        self.no_word = nn.Parameter(torch.zeros(1, 1, dim))
        self.position_enc = PositionalEncoding(dim, dropout)
        self.layers = nn.ModuleList(RefinerLayer(dim, heads, ff, dropout) for _ in range(layers))
        self.norm_out = nn.LayerNorm(dim)

    def forward(self, words):
        """words [B,W,E], zero on padding -> states [B,1+W,H]; bool [B,1+W]: which are not padding."""
        present = nn.functional.pad((words != 0).any(dim=-1), (1, 0), value=True)
        x = self.proj(self.norm(words))
        x = self.position_enc(torch.cat([self.no_word.expand(len(x), -1, -1).to(x), x], dim=1))
        for layer in self.layers:
            x = layer(x, present)
        return self.norm_out(x), present
