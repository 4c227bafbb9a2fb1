"""Captions and prompts -> embeddings, with a disk cache; BadInput where an encoder has no weights.

With `words`, a text is [1+W,E]: its pooled vector, then the states of its W word pieces (models/MARDM.py).
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from models.TextEncoder import TEXT_ENCODERS, TextEncoder, first_line
from motion.files import Unwritten, whole_file
from utils.checkpoints import save_state
from utils.errors import BadInput
from utils.plain import parse_json
from utils.safe_load import load_state, sound


def embed_prompts(texts, encoder_name, device, words=False):
    """N strings -> [N,E] on the device; with words [N,1+W,E], zero where there is none. Raises BadInput."""
    try:
        encoder = _encoder(encoder_name, device)
        return pad_sequence(encoder.encode_words(texts), batch_first=True) if words else encoder.encode(texts)
    except ValueError as error:
        raise BadInput(str(error)) from error


def truncated_texts(texts, encoder_name, device):
    """Those of the texts whose ends the encoder does not read, because they have too many tokens."""
    return _encoder(encoder_name, device).truncated(texts)


@lru_cache(maxsize=1)
def _encoder(name, device):
    """Loads the weights once for many calls."""
    return TextEncoder(name, device)


def embed_captions(clip_sets, encoder_name, root, device, words=False):
    """Every distinct caption of these lists of clips -> (mapping caption -> [E], or [1+W,E], on the CPU; E).

    Kept in the data set's folder. Raises BadInput.
    """
    captions = sorted({caption.text for clips in clip_sets for clip in clips for caption in clip.captions})
    cache = Path(root) / "cache"
    try:
        encoder = TextEncoder(encoder_name, device)
        if words:
            return cached_words(encoder, captions, cache / f"words_{encoder_name}.npy"), encoder.dim
        return cached_embeddings(encoder, captions, cache / f"text_{encoder_name}.pt"), encoder.dim
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


class WordStates(Mapping):
    """caption -> [1+W,E] float32, read from a file or an array of all captions' rows [N,E] float16."""

    def __init__(self, captions, lengths, rows):
        self.rows, ends = rows, np.cumsum(lengths)
        self.places = {
            text: (int(end) - n, int(end)) for text, n, end in zip(captions, lengths, ends, strict=True)
        }

    def __getitem__(self, caption):
        start, end = self.places[caption]
        return torch.from_numpy(self.rows[start:end].astype(np.float32))

    def __len__(self):
        return len(self.places)

    def __iter__(self):
        return iter(self.places)


def cached_words(encoder, captions, cache_file):
    """Captions -> WordStates, computed once and kept in `cache_file`, which is mapped, not read.

    The file holds two arrays: a JSON index {"captions": [...], "lengths": [...]}, then all rows in float16.
    As with `cached_embeddings`, it does not know the weights behind the encoder's name.
    """
    cache_file = Path(cache_file)
    known = read_words(cache_file, encoder.dim)
    missing = sorted(set(captions) - set(known))
    if not missing:
        return known
    new = [states.cpu().numpy().astype(np.float16) for states in encoder.encode_words(missing)]
    lengths = [end - start for start, end in known.places.values()] + [len(states) for states in new]
    whole = WordStates([*known, *missing], lengths, np.concatenate([known.rows, *new]))
    index = json.dumps({"captions": list(whole), "lengths": lengths}).encode()
    try:
        with whole_file(cache_file) as part, open(part, "wb") as stream:
            np.save(stream, np.frombuffer(index, np.uint8))
            np.save(stream, whole.rows)
    except Unwritten as error:
        print(f"{error}; the next start embeds the captions again")
        return whole
    return read_words(cache_file, encoder.dim)


def read_words(cache_file, dim):
    """The WordStates of a cache, empty where there is none, or with a printed line where it is damaged."""
    try:
        with open(cache_file, "rb") as stream:
            index = parse_json(bytes(np.load(stream, allow_pickle=False)).decode())
            np.lib.format.read_magic(stream)
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
            captions, lengths = index["captions"], index["lengths"]
            sizes_match = shape == (sum(lengths), dim) and min(lengths, default=2) >= 2
            if dtype != np.float16 or not sizes_match or not all(isinstance(text, str) for text in captions):
                raise ValueError("rows and index do not match")
            rows = np.memmap(stream, dtype, "r", stream.tell(), shape)
        return WordStates(captions, lengths, rows)
    except FileNotFoundError:
        pass
    except Exception as error:  # a damaged file can fail in any way; all mean: compute again
        print(f"{cache_file}: not a readable cache ({first_line(error)[:100]}); embedding the captions again")
    return WordStates([], [], np.zeros((0, dim), np.float16))
