"""Prompts become one long motion: each part is drawn on its own, then every join as an in-between.

All of it happens on tokens. The autoencoder decodes the whole row at once, so that pose and speed run on
through every join and the root's path adds up over the parts.
"""

# K parts, L tokens, E text width

from dataclasses import replace

import torch

from models.AE import STRIDE
from utils.generation.windows import draw_in_window, part_key, window_around

BATCH = 32  # parts at a time
JOIN_KEYS = 10**12  # beyond the keys of all parts


@torch.no_grad()
def draw_story(pipeline, text, lengths, sampling, transition, repeat=0):
    """text [K,E], lengths [K] tokens -> (features [n,dim], joints [n,J,3]), n = 4 sum(lengths).

    transition: tokens of a join, the smaller half before the seam. A join is drawn from the text of the part
    that begins there, without guidance: measured on 18 joins, this is as smooth as no text at all, and
    smoother than the same with guidance or the mean of both texts.
    """
    tokens = torch.cat(draw_parts(pipeline, text, lengths, sampling, repeat))
    unguided = replace(sampling, cfg=1.0)
    for k, (window, mask) in enumerate(joins([int(n) for n in lengths], transition)):
        if mask.any():
            keys = [JOIN_KEYS + part_key(k, repeat)]
            args = text[k + 1][None], tokens[None, window], mask, unguided, keys
            tokens[window] = draw_in_window(pipeline, *args)[0]
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


def joins(lengths, transition):
    """Where to draw: lengths [K] tokens -> K-1 pairs (window, mask): slice of the story, bool mask in it.

    A join hides `transition` tokens around the seam, but at most a third of either part, so that something
    of each stays. Its window ends where the next join begins: what lies ahead of that is not final.
    """
    before, after = transition // 2, transition - transition // 2
    ends = [sum(lengths[: k + 1]) for k in range(len(lengths))]
    spans = [
        (seam - min(before, lengths[k] // 3), seam + min(after, lengths[k + 1] // 3))
        for k, seam in enumerate(ends[:-1])
    ]
    for k, (first, last) in enumerate(spans):
        window = window_around(first, last, spans[k + 1][0] if k + 1 < len(spans) else ends[-1])
        mask = torch.zeros(window.stop - window.start, dtype=torch.bool)
        mask[first - window.start : last - window.start] = True
        yield window, mask
