"""What is random in a generator's training and sampling, as values that a caller may also fix."""

from copy import copy
from dataclasses import dataclass

import torch

from models.counter_rng import Purpose, bits, normal, sample_keys, uniform
from models.masking import training_masks

# streams of a clip's key (`purpose` in models/counter_rng.py); REPLACEMENT: of `AE.random_replacements`
REPLACEMENT, MASK_RATIO, ORDER, CORRUPTION, CONDITION, TIME, NOISE, POOLED, GUIDANCE = range(9)


def fractions(keys, n):
    """Uniform numbers float64 [B,n] in [0,1); float32 would have ties."""
    return (bits(keys, ORDER, (n,)) & 2**53 - 1).double() * 2**-53


def halton(keys, L):
    """Numbers [B,L] by whose order tokens revealed together lie apart: the bit reversal of their places (van
    der Corput's sequence; Besnier et al., arXiv 2503.17076), rotated by a random number per motion.
    """
    places, spread, step = torch.arange(L), torch.zeros(L, dtype=torch.float64), 0.5
    while places.any():
        spread, places, step = spread + step * (places & 1), places >> 1, step / 2
    return (spread + fractions(keys, 1)) % 1


REVEAL_ORDERS = {"random": fractions, "halton": halton}


class SamplingNoise:
    """What is random in generation: from (seed, key, token) alone, so that a motion is the same in any batch.

    keys: B integers, one per motion; device: where the head's noise is made. reveal: the order of the
    tokens, an entry of REVEAL_ORDERS.
    """

    draw = 0  # see `anew`
    most_tokens = 2**20  # of a motion

    def __init__(self, seed, keys, device="cpu", reveal="random"):
        self.reveal = REVEAL_ORDERS[reveal]
        self.host = sample_keys(torch.tensor(list(keys), dtype=torch.int64), Purpose.SAMPLING, seed)
        self.keys = self.host.to(device)

    def order(self, L):
        """float64 [B,L] in [0,1) on the host: the smaller a token's number, the longer it stays hidden."""
        return self.reveal(self.host, L)

    def rows(self, b, at, shape):
        """Standard normal float32 [N,*shape] for the tokens at places `at` [N] of the motions b [N]."""
        return normal(self.keys[b], NOISE, shape, at + self.draw * self.most_tokens)

    def anew(self, draw):
        """The same with other noise, for tokens that are drawn once more. draw: 1 and more."""
        other = copy(self)
        other.draw = draw
        return other


def keyed_masks(inside, keys, room):
    """`training_masks` drawn from keys [B], all on the device of `inside`; room: as in TrainingDraws."""
    u = uniform(keys, MASK_RATIO, (1,))[:, 0]
    corruption = uniform(keys, CORRUPTION, inside.shape[1:])
    return training_masks(inside, u, uniform(keys, ORDER, (room,)), corruption)


@dataclass
class TrainingDraws:
    """What is random in a training pass, except dropout: keys to draw it by, or values that a caller fixes.

    keys [B] int64 (models/counter_rng.py): masks, t and noise follow from them if None; None: random keys.
    room: the padded length R >= L over which masks are drawn (`training_masks`), L if None.
    random_replacements [B,D,L]: latents for a tenth of the hidden tokens; torch's own noise if None.
    masks: the three of `training_masks`. t [N], noise [N,target_dim]: for the head, N = hidden tokens x
    diffmlps_batch_mul. With keys on the host no step waits for the device.
    """

    keys: torch.Tensor | None = None
    room: int | None = None
    random_replacements: torch.Tensor | None = None
    masks: tuple | None = None
    t: torch.Tensor | None = None
    noise: torch.Tensor | None = None
