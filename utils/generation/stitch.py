"""Several prompts as one long motion: each part is generated on its own, then every join by inpainting.

Joins are inpainted as tokens, and the autoencoder decodes the whole sequence at once, so that pose and speed
are continuous through every join. Outside the joins each part turns and walks as it does alone.
"""

# K parts, L tokens, E text width, n frames, J joints, D essential columns

import numpy as np
import torch

from models.AE import STRIDE
from models.sampling import unguided
from motion.render.figure import faces
from utils.generation.anchoring import anchor
from utils.generation.windows import draw_in_window, part_key, window_around
from utils.motion_process import recover_from_ric

BATCH = 32  # parts at a time
JOIN_KEYS = 10**12  # keys of joins: beyond those of all parts
TRANSITION = 8  # frames around a join that are drawn anew


def draw_stories(pipeline, texts, sampling, repeats, transition):
    """One motion of all prompts for each repeat -> as `single_motions.draw_each`. transition: tokens."""
    parts = [{"prompt": p, "frames": STRIDE * int(n)} for p, n in zip(texts.prompts, texts.m_lens)]
    for r in range(repeats):
        rows, one = draw_story(pipeline, texts.rows, texts.m_lens, sampling, transition, r)
        yield {"prompt": "story", "prompts": parts, "sample": 0, "repeat": r}, rows, one


@torch.no_grad()
def draw_story(pipeline, text, lengths, sampling, transition, repeat=0):
    """text [K,E], lengths [K] tokens -> (rows [n,D], joints [n,J,3]), n = 4 sum(lengths).

    transition: tokens of a join, the smaller half before the seam. A join is drawn from the text of the part
    after it, without guidance: measured on 18 joins, this is as smooth as no text at all, and smoother than
    the same with guidance or the mean of both texts.
    """
    parts, counts = draw_parts(pipeline, text, lengths, sampling, repeat), [int(n) for n in lengths]
    tokens, spans = torch.cat(parts), seams(counts, transition)
    plain = unguided(sampling, pipeline.mardm)
    for k, (window, mask) in enumerate(joins(spans, len(tokens))):
        if mask.any():
            keys = [JOIN_KEYS + part_key(k, repeat)]
            args = text[k + 1][None], tokens[None, window], mask, plain, keys
            tokens[window] = draw_in_window(pipeline, *args)[0]

    def decode(tokens):
        frames = torch.tensor([STRIDE * len(tokens)], device=tokens.device)
        return pipeline.decode(tokens[None], frames, snap=sampling.snap != "off")[0][0]

    kept = np.ones(len(tokens), dtype=bool)
    for (first, last), seam in zip(spans, np.cumsum(counts)):
        kept[min(first, seam - 1) : max(last, seam + 1)] = False
    alone = in_a_row([decode(part) for part in parts], pipeline.spec.skeleton)
    rows, _ = anchor(decode(tokens), alone, kept.repeat(STRIDE), pipeline.spec.skeleton)
    rows = rows.astype(np.float32)
    return rows, recover_from_ric(torch.from_numpy(rows), len(pipeline.spec.skeleton)).numpy()


def in_a_row(parts, skeleton):
    """Rows [n_k,D] of K motions, concatenated -> [n,D], turned so that the body faces the same way on both
    sides of every seam.

    The body, not the rows' heading, which is smoothed over about two seconds (`motion_process.headings`): at
    either end of a short turn the two differ by up to 15 degrees.
    """
    rows, seam = np.concatenate(parts).astype(np.float64), 0
    for before, after in zip(parts, parts[1:]):
        seam += len(before)
        turn = _facing(before[-STRIDE:], skeleton) - _facing(after[:STRIDE], skeleton)
        rows[seam - 1, 0] -= ((turn + np.pi) % (2 * np.pi) - np.pi) / 2
    return rows


def _facing(rows, skeleton):
    """Mean facing of hips and shoulders in rows [n,D]: an angle about +Y, relative to the rows' heading."""
    joints = np.pad(rows[:, 4:].reshape(len(rows), -1, 3), [(0, 0), (1, 0), (0, 0)])  # the root comes first
    x, _, z = faces(joints, skeleton).sum(axis=0)
    return np.arctan2(x, z)


def draw_parts(pipeline, text, lengths, sampling, repeat):
    """Generate every prompt by itself -> list of K tensors of targets [L_k,target_dim]."""
    parts = []
    for first in range(0, len(lengths), BATCH):
        some = lengths[first : first + BATCH].to(text.device)
        keys = [part_key(first + k, repeat) for k in range(len(some))]
        drawn = pipeline.mardm.generate(
            pipeline.autoencoder.ae, text[first : first + BATCH], some, sampling, keys
        )
        parts += [row[:n] for row, n in zip(drawn, some.tolist())]
    return parts


def seams(lengths, transition):
    """Tokens to inpaint around every seam: lengths [K] tokens -> K-1 pairs (first, last), last exclusive.

    `transition` tokens, but at most a third of either part, so that some of each stays.
    """
    before, after = transition // 2, transition - transition // 2
    ends = np.cumsum(lengths).tolist()
    return [
        (seam - min(before, lengths[k] // 3), seam + min(after, lengths[k + 1] // 3))
        for k, seam in enumerate(ends[:-1])
    ]


def joins(spans, total):
    """Windows for the spans of `seams` -> list of (slice of the story, bool mask in it of the span).

    A window ends where the next span begins, since the tokens from there on are not yet inpainted.
    """
    starts = [first for first, _ in spans[1:]] + [total]
    return [window_around(*span, open_until) for span, open_until in zip(spans, starts)]
