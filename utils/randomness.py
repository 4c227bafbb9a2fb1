"""Seeds the libraries' own generators by address: a resumed run draws what an uninterrupted one would."""

import random

import numpy as np
import torch

from models.counter_rng import Purpose, seed_sequence


def reseed(seed, *address):
    """Seed Python's, NumPy's and PyTorch's generators from an address, e.g. (seed, step)."""
    number = int(seed_sequence(Purpose.LIBRARIES, seed, *address).generate_state(1)[0])
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)
