"""MARDM's training step, kept for comparison.

The autoencoder's encoder records gradients that nobody uses, the text tower runs at every step, every token
is repeated before the hidden ones are gathered, and the moving average is updated parameter by parameter,
the frozen text tower's included. bench_train.py times it.
"""

from contextlib import contextmanager
from unittest.mock import patch

import torch

from models import onednn
from models.draws import keyed_masks
from models.masking import lengths_to_mask
from models.words import drop_texts

TEXT_TOKENS = 77  # CLIP pads every text to this many


@contextmanager
def plain_products():
    """PyTorch's own float32 products, which torch.utils.flop_counter knows."""
    with patch.object(onednn, "available", lambda *_: False):
        yield


def text_tower(layers=12):
    """A text transformer of CLIP ViT-B/32's size (63 million parameters) with random weights, frozen."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    tower = CLIPTextModelWithProjection(CLIPTextConfig(num_hidden_layers=layers))
    return tower.eval().requires_grad_(False)


def embed(tower, n):
    """n texts of random tokens -> [n,512]"""
    device = next(tower.parameters()).device
    tokens = torch.randint(1, tower.config.vocab_size, (n, TEXT_TOKENS), device=device)
    with torch.no_grad():
        return tower(tokens).text_embeds


def repeat_then_gather_loss(mardm, latents, targets, text, m_lens, keys):
    """MARDM.forward_loss, but all tokens are repeated, and the hidden ones are gathered from the copies; the
    gradient runs on into the latents and the targets.
    """
    latents = latents.mT
    inside = lengths_to_mask(m_lens, latents.shape[1])
    hidden, replaced, blank = keyed_masks(inside, keys, latents.shape[1])
    x = torch.where(replaced[..., None], torch.randn_like(latents), latents)
    x = torch.where(blank[..., None], mardm.mask_latent, x) * inside[..., None]
    if mardm.training:
        text = drop_texts(text, keys, mardm.cond_drop_prob, mardm.pooled_drop_prob)
    z = mardm.transformer(x, text, inside)

    times = mardm.diffmlps_batch_mul
    rows = ((targets - mardm.target_mean) / mardm.target_std).flatten(0, 1).repeat(times, 1)
    z, hidden = z.flatten(0, 1).repeat(times, 1), hidden.flatten().repeat(times)
    return mardm.DiffMLPs.loss(rows[hidden], z[hidden]).mean()


@torch.no_grad()
def average_one_by_one(averages, modules, decay=0.9999):
    """averages: copies of the modules. A loop over names, two small operations for each parameter."""
    for average, module in zip(averages, modules):
        kept = dict(average.named_parameters())
        for name, parameter in module.named_parameters():
            kept[name].mul_(decay).add_(parameter.data, alpha=1 - decay)
