"""The length estimator: text embedding -> distribution over motion lengths in tokens.

A token is 4 frames; class k = k tokens. The network is that of T2M and MoMask (Guo et al., CVPR 2022, 2024),
as MARDM publishes it.
"""

import torch
from torch import nn

from models.AE import STRIDE
from models.counter_rng import Purpose, rng

MAX_TOKENS = 49
MAX_FRAMES = MAX_TOKENS * STRIDE  # 196: the longest motion that is generated or scored


class LengthEstimator(nn.Module):
    """forward(text [B,E]) -> logits [B,output_size] over 0, 1, ..., output_size - 1 tokens."""

    def __init__(self, input_size, output_size=50):
        super().__init__()

        def layer(inputs, outputs):
            return [nn.Linear(inputs, outputs), nn.LayerNorm(outputs), nn.LeakyReLU(0.2)]

        # the names output.0, output.1, output.4, ... are those of published checkpoints
        self.output = nn.Sequential(
            *layer(input_size, 512),
            nn.Dropout(0.2),
            *layer(512, 256),
            nn.Dropout(0.2),
            *layer(256, 128),
            nn.Linear(128, output_size),
        )

    def forward(self, text):
        return self.output(text)


def length_distribution(logits, min_tokens):
    """Softmax over the classes min_tokens..MAX_TOKENS, zero elsewhere. logits [B,C] -> [B,C] float64, on the
    host because Apple's GPUs have no float64.
    """
    classes = torch.arange(logits.shape[1])
    illegal = (classes < min_tokens) | (classes > MAX_TOKENS)
    return logits.cpu().double().masked_fill(illegal, -torch.inf).softmax(dim=1)


def sample_lengths(logits, min_tokens, seed, indices=None):
    """Draw a length in tokens for each row: logits [B,C] -> int64 [B] on the host, in min_tokens..MAX_TOKENS.

    Row i draws from (seed, indices[i]), or (seed, i) by default: its batch does not matter.
    """
    share = length_distribution(logits, min_tokens).cumsum(dim=1)
    indices = range(len(logits)) if indices is None else indices
    draws = [rng(Purpose.LENGTH, seed, index).random() for index in indices]
    draws = torch.tensor(draws, dtype=torch.float64)[:, None]
    # the first class whose share exceeds the draw
    return torch.searchsorted(share, draws * share[:, -1:], right=True)[:, 0]
