"""Random numbers with an address, for training: what a clip draws follows from (seed, step, clip) alone.

Who else is in the batch, how the batch is split over processes and micro-batches, and on which device it lies,
changes nothing. Counter-based: the n-th number of a stream is a hash of the stream's key plus n times an odd
constant, which is SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) started at the key.
"""

import math

import numpy as np
import torch

STEP = 0x9E3779B97F4A7C15 - 2**64  # 2^64 / golden ratio, odd; int64 products wrap


def splitmix64(x):
    """SplitMix64's finaliser on int64 [...]; masks make its shifts logical."""
    x = (x ^ (x >> 30 & 2**34 - 1)) * (0xBF58476D1CE4E5B9 - 2**64)
    x = (x ^ (x >> 27 & 2**37 - 1)) * (0x94D049BB133111EB - 2**64)
    return x ^ (x >> 31 & 2**33 - 1)


def sample_keys(seed, step, clips):
    """The streams of these clips [B] (numbers in the data set) at a step: int64 [B]."""
    start = int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0].astype(np.int64))
    return splitmix64(splitmix64(clips * STEP + start))


def random_keys(n):
    """Keys from torch's own generator, where nobody needs an address."""
    return torch.randint(2**62, (n,))


def bits(keys, purpose, shape, at=None):
    """int64 [N,*shape]. keys [N]; purposes are small numbers, each a stream of its own.

    at int64 [N]: which entry of such a block per clip is wanted, where a clip has many (a token's, say).
    """
    n = math.prod(shape)
    count = torch.arange(n, device=keys.device)
    count = count if at is None else at[:, None] * n + count
    return splitmix64(splitmix64(keys ^ purpose)[:, None] + count * STEP).unflatten(1, shape)


def uniform(keys, purpose, shape, at=None):
    """float32 [N,*shape], strictly between 0 and 1: the middles of 2^23 equal parts."""
    return ((bits(keys, purpose, shape, at) & 2**23 - 1).float() + 0.5) * 2**-23


def normal(keys, purpose, shape, at=None):
    """float32 [N,*shape], standard normal by inversion; the largest is 5.3."""
    return torch.erfinv(2 * uniform(keys, purpose, shape, at) - 1) * math.sqrt(2)


def integers(keys, purpose, shape, high):
    """int64 [N,*shape] in 0..high-1 (the bias of the remainder is high / 2^62)."""
    return (bits(keys, purpose, shape) & 2**62 - 1) % high
