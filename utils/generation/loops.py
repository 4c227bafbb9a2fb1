"""Motions whose last frame flows into their first: the seam between them is inpainted."""

# L tokens, T = 4 L frames, D columns

import numpy as np
import torch

from models.AE import STRIDE
from models.sampling import unguided
from utils.generation.windows import CONTEXT, draw_in_window, part_key
from utils.motion_process import recover_from_ric

LOOP_KEYS = 3 * 10**12  # keys of seams: beyond those of parts, joins and waypoints
TURN = np.radians(45)  # a motion that turns less than this in total is made to end in its first direction


def draw_loops(pipeline, texts, sampling, repeats, transition):
    """Every prompt and repeat -> (entry of samples.json, feature rows, joints). transition: tokens.

    Joints have one frame more than rows: see `draw_loop`.
    """
    for i, prompt in enumerate(texts.prompts):
        for r in range(repeats):
            text, length = texts.rows[i][None], int(texts.m_lens[i])
            rows, joints = draw_loop(pipeline, text, length, sampling, transition, part_key(i, r))
            yield {"prompt": prompt, "sample": i, "repeat": r}, rows, joints


@torch.no_grad()
def draw_loop(pipeline, text, length, sampling, transition, key):
    """text [1,E], length in tokens -> (rows [T,D], joints [T+1,J,3]) of a loop; joints end with the first
    pose again, where the next round begins.

    The motion is drawn and rolled by half, so that its end stands before its beginning; `transition` tokens
    around this seam, at most a third of the motion, are drawn again without guidance, as joins are. The ring
    is decoded with context on both sides. A small total turn is removed, evenly; distance walked stays.
    """
    lengths = torch.tensor([length], device=pipeline.device)
    tokens = pipeline.mardm.generate(pipeline.autoencoder.ae, text, lengths, sampling, [key])
    half, hidden = length // 2, min(transition, length // 3)
    mask = torch.zeros(length, dtype=torch.bool)
    mask[half - hidden // 2 : half - hidden // 2 + hidden] = True
    rolled = tokens.roll(half, dims=1)
    if hidden:
        plain = unguided(sampling, pipeline.mardm)
        rolled = draw_in_window(pipeline, text, rolled, mask, plain, [LOOP_KEYS + key])
    (tokens,) = rolled.roll(-half, dims=1)

    around = min(CONTEXT, length)
    ring = torch.cat([tokens[-around:], tokens, tokens[:around]])[None]
    frames = torch.tensor([STRIDE * ring.shape[1]], device=pipeline.device)
    (rows,), _ = pipeline.decode(ring, frames, snap=sampling.snap != "off")
    rows = rows[STRIDE * around : STRIDE * (around + length)].copy()
    half_turn = float(rows[:, 0].sum())
    if abs(2 * half_turn) < TURN:
        rows[:, 0] -= half_turn / len(rows)
    closed = torch.from_numpy(np.concatenate([rows, rows[:1]]))
    return rows, recover_from_ric(closed, len(pipeline.spec.skeleton)).numpy()
