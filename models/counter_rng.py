"""Random numbers with an address: every stream follows from (purpose, seed, ...) alone.

    rng(Purpose.CROP, seed, epoch, clip)                      a NumPy generator
    keys = sample_keys(clips, Purpose.TRAINING, seed, step)   int64 [B], for uniform(keys, ...) and the like

What a clip draws from its key does not depend on the rest of the batch, on how the batch is split over
processes and micro-batches, or on the device. Counter-based: the n-th number of a stream is a hash of its key
plus n times an odd constant, which is SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) started at the key.
"""

import math
from enum import IntEnum

import numpy as np
import torch

SEED = 3407  # the default of every command
STEP = 0x9E3779B97F4A7C15 - 2**64  # 2^64 / golden ratio, odd; int64 products wrap


def splitmix64(x):
    """SplitMix64's finaliser on int64 [...]; masks make its shifts logical."""
    x = (x ^ (x >> 30 & 2**34 - 1)) * (0xBF58476D1CE4E5B9 - 2**64)
    x = (x ^ (x >> 27 & 2**37 - 1)) * (0x94D049BB133111EB - 2**64)
    return x ^ (x >> 31 & 2**33 - 1)


class Purpose(IntEnum):
    """What random numbers are for: the first part of an address, so that no two uses share a stream."""

    TRAINING = 1  # masks, corruption, times and noise of a clip at a training step
    VALIDATION = 2  # the same, of a clip of the validation split
    SAMPLING = 3  # order and noise of a motion
    LENGTH = 4  # a motion's length, drawn from the estimate for its text
    LIBRARIES = 5  # seeds of torch's, NumPy's and Python's own generators
    ORDER = 6  # order of an epoch's clips; of the label pairs from which --unseen_pairs holds some out
    CROP = 7  # caption, then crop, of a clip in an epoch of training or a repeat of an evaluation
    EVALUATION = 8  # pools, pairs, and which clips count under MARDM's protocol, in a repeat
    MULTIMODALITY = 9  # captions and pairs for MultiModality
    REFERENCE = 10  # clips scored as if generated: those of the training split, those with planted defects
    LABELS = 11  # what an oracle that knows the labels reaches
    # 12 and 13 drew splits and words in earlier versions: never reuse a number
    HALVES = 14  # halves of the clips for the delete-half jackknife
    DISTILLATION = 15  # masks, guidance and noise of a clip at a step of a one-step head's training
    STORIES = 16  # which captions are stitched
    OWN_MOTIONS = 17  # guidance scale of the motions that a one-step head generates to train on


def seed_sequence(purpose, seed, *address):
    """np.random.SeedSequence of an address: integers in [-2^63, 2^64).

    Two words each, after the purpose and the number of integers: NumPy takes one or two words by size and
    pads with zeros, so that its own (5,), (5, 0) and (5, 0, 0) are one stream.
    """
    words = [purpose, len(address)]
    for number in (seed, *address):
        words += [int(number) & 2**32 - 1, int(number) >> 32 & 2**32 - 1]
    return np.random.SeedSequence(words)


def rng(purpose, seed, *address):
    """The NumPy generator of an address, e.g. (Purpose.CROP, seed, epoch, clip)."""
    return np.random.default_rng(seed_sequence(purpose, seed, *address))


def sample_keys(samples, purpose, seed, *address):
    """Keys int64 [B] of the samples int64 [B] (indices of clips or motions) at an address."""
    start = seed_sequence(purpose, seed, *address).generate_state(1, np.uint64)[0].astype(np.int64)
    return splitmix64(splitmix64(samples * STEP + int(start)))


def random_keys(n):
    """Keys from torch's own generator, where nobody needs an address."""
    return torch.randint(2**62, (n,))


def bits(keys, purpose, shape, at=None):
    """Random int64 [N,*shape] of keys [N]; each `purpose`, a small number, is a stream of its own.

    at int64 [N]: which block of `shape` numbers, where a key has several (one for each token, say).
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
