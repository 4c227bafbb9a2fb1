"""Captions and prompts -> embeddings, with the encoder's complaints turned into one line for the user."""

from functools import lru_cache
from pathlib import Path

from models.TextEncoder import cached_embeddings, load_text_encoder
from utils.errors import BadInput


def embed_prompts(texts, encoder_name, device):
    """list of N strings -> [N,E] on the device. BadInput where the weights are not to be had."""
    try:
        return _encoder(encoder_name, device).encode(texts)
    except ValueError as error:
        raise BadInput(str(error)) from error


@lru_cache(maxsize=1)
def _encoder(name, device):
    """A program that asks again and again loads its weights once."""
    return load_text_encoder(name, device)


def embed_captions(clip_sets, encoder_name, root, device):
    """Every distinct caption of these lists of clips, encoded once and kept in the data set's folder.

    -> (dict caption -> [E] on the CPU, E)
    """
    captions = sorted({caption.text for clips in clip_sets for clip in clips for caption in clip.captions})
    try:
        encoder = load_text_encoder(encoder_name, device)
        cache_file = Path(root) / "cache" / f"text_{encoder_name}.pt"
        return cached_embeddings(encoder, captions, cache_file), encoder.dim
    except ValueError as error:
        raise BadInput(str(error)) from error
