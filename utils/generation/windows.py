"""Inpaint tokens of a motion of any length, in windows that fit the generator."""

# n motions, L tokens, d target width, E text width

import torch

from models.LengthEstimator import MAX_TOKENS
from motion.feet import stretches

CONTEXT = 12  # known tokens before each piece of a section that is longer than a window
MOST_REPEATS = 100_003  # of a sample: further ones would share keys with the next sample


def part_key(sample, repeat):
    """Key of a motion's noise (MARDM.generate); sample k of a list and part k of a story share it."""
    return sample * MOST_REPEATS + repeat


def window_around(first, last, open_until):
    """A window of at most MAX_TOKENS tokens around first..last-1, within 0..open_until-1. -> (slice, bool
    mask in it of first..last-1)
    """
    room = MAX_TOKENS - (last - first)
    after = min(room // 2, open_until - last)
    before = min(room - after, first)
    after = min(room - before, open_until - last)
    mask = torch.zeros(before + last - first + after, dtype=torch.bool)
    mask[before : before + last - first] = True
    return slice(first - before, last + after), mask


def windows(hidden):
    """bool [L] -> [(window, bool mask of what to draw in it)], from left to right.

    A single one if the motion fits. Else one for each section, or several if it and its context are longer
    than a window; none contains tokens that a later window draws.
    """
    if len(hidden) <= MAX_TOKENS:
        return [(slice(0, len(hidden)), hidden)]
    size = MAX_TOKENS - CONTEXT
    pieces = [(a, min(a + size, last)) for first, last in stretches(hidden) for a in range(first, last, size)]
    starts = [first for first, _ in pieces[1:]] + [len(hidden)]
    return [window_around(*piece, open_until) for piece, open_until in zip(pieces, starts)]


@torch.no_grad()
def draw_hidden(pipeline, text, tokens, hidden, sampling, keys):
    """tokens [1,L,d] -> [n,L,d]: for each of n keys, tokens in `hidden`, bool [L], drawn from text [1,E]."""
    text, tokens = text.expand(len(keys), *text.shape[1:]), tokens.expand(len(keys), -1, -1).clone()
    for k, (window, mask) in enumerate(windows(hidden)):
        own = [part_key(k, key) for key in keys]
        tokens[:, window] = draw_in_window(pipeline, text, tokens[:, window], mask, sampling, own)
    return tokens


def draw_in_window(pipeline, text, tokens, mask, sampling, keys):
    """text [n,E], tokens [n,L,d], L <= MAX_TOKENS, mask bool [L] -> the same, masked ones drawn anew."""
    n, length, _ = tokens.shape
    lengths = torch.full((n,), length, device=tokens.device)
    sections = mask.to(tokens.device).expand(n, -1)
    edit, ae = pipeline.mardm.edit, pipeline.autoencoder.ae
    return edit(ae, text, lengths, tokens, sections, sampling, keys)
