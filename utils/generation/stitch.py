"""Prompts become one long motion: each part is drawn on its own, then every join as an in-between.

All of it happens on tokens. The autoencoder decodes the whole row at once, so that pose and speed run on
through every join and the root's path adds up over the parts.
"""

# K parts, L tokens, E text width

from dataclasses import replace

import torch

from models.AE import STRIDE
from models.LengthEstimator import MAX_TOKENS

BATCH = 32  # parts at a time


def part_key(sample, repeat):
    """What the noise of a motion follows from: part k of a story is what sample k gives alone."""
    return sample * 100_003 + repeat


def join_key(join, repeat):
    """Never the key of a part."""
    return 10**12 + part_key(join, repeat)


@torch.no_grad()
def draw_story(pipeline, text, lengths, sampling, transition, repeat=0):
    """text [K,E], lengths [K] tokens -> (features [n,dim], joints [n,J,3]), n = 4 sum(lengths).

    transition: tokens of a join, half of them on either side.
    """
    tokens = torch.cat(draw_parts(pipeline, text, lengths, sampling, repeat))
    for k, (window, hidden) in enumerate(joins([int(n) for n in lengths], transition // 2)):
        if len(hidden):
            key = join_key(k, repeat)
            tokens[window] = draw_join(pipeline, text[k + 1], tokens[window], hidden, sampling, key)
    frames = torch.tensor([STRIDE * len(tokens)], device=tokens.device)
    (features,), (joints,) = pipeline.decode(tokens[None], frames, snap=sampling.snap != "off")
    return features, joints


def draw_parts(pipeline, text, lengths, sampling, repeat):
    """Every prompt by itself -> list of K tensors [L_k,target_dim]."""
    parts = []
    for first in range(0, len(lengths), BATCH):
        some = lengths[first : first + BATCH].to(text.device)
        keys = [part_key(first + k, repeat) for k in range(len(some))]
        drawn = pipeline.mardm.generate(
            pipeline.tokenizer.ae, text[first : first + BATCH], some, sampling, keys
        )
        parts += [row[:n] for row, n in zip(drawn, some.tolist())]
    return parts


def joins(lengths, half):
    """Where to draw: lengths [K] tokens -> K-1 pairs (window, hidden): slice of the story, range in it.

    A join hides up to `half` tokens before and after the seam, and at most a third of either part, so that
    something of each part stays. The window is as wide as a motion may be, but ends where the next join
    begins: what lies behind is final, what lies ahead is not.
    """
    ends = [sum(lengths[: k + 1]) for k in range(len(lengths))]
    for k, seam in enumerate(ends[:-1]):
        first = seam - min(half, lengths[k] // 3)
        last = seam + min(half, lengths[k + 1] // 3)
        open_until = ends[k + 1]
        if k + 2 < len(lengths):
            open_until -= min(half, lengths[k + 1] // 3)
        room = MAX_TOKENS - (last - first)
        after = min(room // 2, open_until - last)
        before = min(room - after, first)
        after = min(room - before, open_until - last)
        window = slice(first - before, last + after)
        yield window, range(before, before + last - first)


def draw_join(pipeline, text, tokens, hidden, sampling, key):
    """tokens [L,target_dim] of a window -> the same with those of `hidden` drawn anew.

    text [E]: that of the part which begins here, without guidance: measured on 18 joins, this is as smooth as
    no text at all, and smoother than the same with guidance or the mean of both texts.
    """
    sections = torch.zeros(1, len(tokens), dtype=torch.bool, device=tokens.device)
    sections[0, hidden.start : hidden.stop] = True
    length = torch.tensor([len(tokens)], device=tokens.device)
    edit, ae = pipeline.mardm.edit, pipeline.tokenizer.ae
    return edit(ae, text[None], length, tokens[None], sections, replace(sampling, cfg=1.0), [key])[0]
