"""Captions and prompts -> embeddings, with a disk cache; BadInput where an encoder has no weights."""

from functools import lru_cache
from pathlib import Path

import torch

from models.TextEncoder import TEXT_ENCODERS, TextEncoder, first_line
from motion.files import Unwritten
from utils.checkpoints import save_state
from utils.errors import BadInput
from utils.safe_load import load_state, sound


def embed_prompts(texts, encoder_name, device):
    """N strings -> [N,E] on the device. Raises BadInput."""
    try:
        return _encoder(encoder_name, device).encode(texts)
    except ValueError as error:
        raise BadInput(str(error)) from error


def truncated_texts(texts, encoder_name, device):
    """Those of the texts whose ends the encoder does not read, because they have too many tokens."""
    return _encoder(encoder_name, device).truncated(texts)


@lru_cache(maxsize=1)
def _encoder(name, device):
    """Loads the weights once for many calls."""
    return TextEncoder(name, device)


def embed_captions(clip_sets, encoder_name, root, device):
    """Every distinct caption of these lists of clips -> (dict caption -> [E] on the CPU, E).

    Kept in the data set's folder. Raises BadInput.
    """
    captions = sorted({caption.text for clips in clip_sets for clip in clips for caption in clip.captions})
    try:
        encoder = TextEncoder(encoder_name, device)
        cache_file = Path(root) / "cache" / f"text_{encoder_name}.pt"
        return cached_embeddings(encoder, captions, cache_file), encoder.dim
    except ValueError as error:
        raise BadInput(str(error)) from error


def cached_embeddings(encoder, captions, cache_file):
    """Captions -> dict caption -> row [dim] on the CPU, computed once and kept in `cache_file`.

    The file holds {encoder name: {"captions": [...], "rows": [N,dim]}}; missing captions are added. It does
    not know the weights behind a name: remove it after pointing the encoder's variable to others.
    """
    cache_file = Path(cache_file)
    cache = read_cache(cache_file)
    known, rows = cache.get(encoder.name, {"captions": [], "rows": torch.zeros(0, encoder.dim)}).values()
    missing = sorted(set(captions) - set(known))
    if missing:
        known, rows = known + missing, torch.cat([rows, encoder.encode(missing).cpu()])
        write_cache(cache_file, cache | {encoder.name: {"captions": known, "rows": rows}})
    row_of = {caption: row for row, caption in enumerate(known)}
    return {caption: rows[row_of[caption]] for caption in captions}


def read_cache(cache_file):
    """The cache's dict, or {} with a printed line where the file is damaged. Nothing in it is executed."""
    if not cache_file.exists():
        return {}
    try:
        cache = load_state(cache_file)
        for name, part in cache.items():
            captions, rows = part["captions"], part["rows"]
            if list(part) != ["captions", "rows"] or rows.shape != (len(captions), TEXT_ENCODERS[name].dim):
                raise ValueError(f"{name}: rows and captions do not match")
            if not isinstance(captions, list) or not sound(rows):
                raise ValueError(f"{name}: captions are no list, or rows not finite")
        return cache
    except Exception as error:  # a damaged file can fail in any way; all mean: compute again
        print(f"{cache_file}: not a readable cache ({first_line(error)[:100]}); embedding the captions again")
        return {}


def write_cache(cache_file, cache):
    """Save the cache; where it cannot be written, only say so."""
    try:
        save_state(cache_file, cache)
    except Unwritten as error:
        print(f"{error}; the next start embeds the captions again")
