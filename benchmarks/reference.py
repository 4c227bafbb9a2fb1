"""MARDM's generation as published, kept for comparison: every hidden token is drawn in every round.

Tokens that do not leave the mask in a round are hidden again unread, so this gives the motions of
`MARDM.generate` for eleven times its work. Tests compare the two; bench_generate.py times them.
"""

import torch

from models.draws import SamplingNoise
from models.masking import lengths_to_mask, reveal_rounds
from models.sampling import resolve_sampling


@torch.no_grad()
def draw_everything(mardm, tokenizer, text, m_lens, sampling, rounds=None, edit=None):
    """As MARDM.generate, or with edit = (targets, sections) as MARDM.edit; two Transformer passes a round.

    rounds: run only these (for timing). -> [B,L,target_dim]
    """
    targets, sections = edit or (None, None)
    sampling = resolve_sampling(sampling, mardm)
    head = mardm.head(sampling)
    draw = head.draw_with(sampling)
    B, L = len(m_lens), int(m_lens.max()) if targets is None else targets.shape[1]
    inside = lengths_to_mask(m_lens, L)
    targets = text.new_zeros(B, L, mardm.target_dim) if targets is None else targets * inside[..., None]
    drawn_anew = inside if sections is None else sections & inside
    noise = SamplingNoise(sampling.seed, range(B), text.device, sampling.order)
    leaves = reveal_rounds(drawn_anew.cpu(), noise.order(L), sampling.time_steps).to(text.device)
    for r in range(sampling.time_steps) if rounds is None else rounds:
        hidden = leaves >= r
        if not hidden.any():
            break
        x = (
            torch.where(hidden[..., None], mardm.mask_latent, tokenizer.embed_codes(targets).mT)
            * inside[..., None]
        )
        z, z_null = (mardm.transformer(x, c, inside)[hidden] for c in (text, torch.zeros_like(text)))
        start = noise.rows(*hidden.nonzero(as_tuple=True), head.noise_shape).to(z)
        drawn = draw(z, z_null, start)
        drawn = drawn * mardm.target_std + mardm.target_mean
        targets = targets.clone()
        targets[hidden] = tokenizer.quantize(drawn[None])[0] if sampling.snap == "step" else drawn
    if sampling.snap == "end":
        targets = torch.where(drawn_anew[..., None], tokenizer.quantize(targets), targets)
    return targets
