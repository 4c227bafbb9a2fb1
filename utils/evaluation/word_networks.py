"""Matching networks for small sets: a frozen text encoder reads the captions, similarity is the cosine.

Words learned from a thousand clips do not tell apart captions that training lacks; the word states of a
pretrained encoder do (as in TMR, Petrovich et al., ICCV 2023). Both towers end in attention, mean and maximum
over time, since a single word or moment may decide.
B batch, T frames, L = T/4 tokens, W word pieces, E text width, H hidden width, D embedding width.
"""

import torch
from torch import nn
from torch.nn import functional as F

from models.AE import STRIDE
from models.masking import lengths_to_mask

HEADS = 4
KERNEL = 2 * STRIDE  # frames that a token of motion reads
SIZES = ("dim", "width", "hidden", "embedding", "blocks")
WORD_DROPOUT = 0.1  # share of word pieces that are not read in training
FIRST_SCALE, LARGEST_SCALE = 10.0, 50.0  # inverse temperature of the cosines, learned


class Summary(nn.Module):
    """A sequence [B,S,H] and its mask [B,S] -> [B,D]: attention with HEADS queries, mean and maximum, then a
    linear layer.
    """

    def __init__(self, hidden, out, dropout):
        super().__init__()
        self.score = nn.Linear(hidden, HEADS)
        self.out = nn.Sequential(nn.LayerNorm(3 * hidden), nn.Dropout(dropout), nn.Linear(3 * hidden, out))

    def forward(self, x, mask):
        outside = ~mask[..., None]
        weights = self.score(x).masked_fill(outside, -torch.inf).softmax(dim=1)
        attended = torch.einsum("bsh,bshc->bhc", weights, x.unflatten(-1, (HEADS, -1))).flatten(1)
        mean = x.masked_fill(outside, 0).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        largest = x.masked_fill(outside, -torch.inf).amax(dim=1)
        return self.out(torch.cat([attended, mean, largest], dim=-1))


class DilatedBlock(nn.Module):
    """Residual block on [B,L,H] with a dilated convolution over three tokens."""

    def __init__(self, hidden, dilation, dropout):
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.conv = nn.Conv1d(hidden, hidden, 3, padding=dilation, dilation=dilation)
        self.out = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, mask):
        inside = self.norm(x) * mask[..., None]
        return x + self.dropout(self.out(F.gelu(self.conv(inside.mT).mT)))


class MotionTower(nn.Module):
    """z-normalised rows [B,T,C], zero past each end, m_lens [B] frames -> [B,D]."""

    def __init__(self, dim, hidden, out, blocks, dropout):
        super().__init__()
        self.tokens = nn.Conv1d(dim, hidden, KERNEL, stride=STRIDE, padding=(KERNEL - STRIDE) // 2)
        self.blocks = nn.ModuleList(DilatedBlock(hidden, 2**i, dropout) for i in range(blocks))
        self.dropout, self.summary = nn.Dropout(dropout), Summary(hidden, out, dropout)

    def forward(self, motion, m_lens):
        x = self.dropout(F.gelu(self.tokens(motion.mT).mT))
        mask = lengths_to_mask(m_lens.to(x.device) // STRIDE, x.shape[1])
        for block in self.blocks:
            x = block(x, mask)
        return self.summary(x, mask)


class WordTower(nn.Module):
    """Word states [B,W,E], zero past each end -> [B,D]."""

    def __init__(self, width, hidden, out, dropout):
        super().__init__()
        self.input = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout))
        self.summary = Summary(hidden, out, dropout)

    def forward(self, states):
        mask = states.any(dim=-1)
        if self.training:
            kept = torch.rand(mask.shape, device=mask.device) > WORD_DROPOUT
            kept[:, 0] = True  # the begin token stays, so that something does
            mask = mask & kept
        return self.summary(self.input(states), mask)


class WordMatching(nn.Module):
    """Both towers, into one space of unit vectors. sizes: a dict with the keys SIZES."""

    def __init__(self, sizes, dropout=0.3):
        super().__init__()
        dim, width, hidden, out, blocks = (sizes[key] for key in SIZES)
        self.motion = MotionTower(dim, hidden, out, blocks, dropout)
        self.text = WordTower(width, hidden, out, dropout)
        self.log_scale = nn.Parameter(torch.tensor(FIRST_SCALE).log())

    def embed_motion(self, motion, m_lens):
        return F.normalize(self.motion(motion, m_lens), dim=-1)

    def embed_text(self, text):
        """text [B,1+W,E]: the pooled vector, which is ignored, then the word states. -> [B,D]"""
        return F.normalize(self.text(text[:, 1:]), dim=-1)

    def scale(self):
        return self.log_scale.exp().clamp(max=LARGEST_SCALE)
