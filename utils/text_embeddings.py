"""Captions and prompts -> embeddings, with a disk cache; BadInput where an encoder has no weights.

With `words`, a text is [1+W,E]: its pooled vector, then the states of its W word pieces (models/words.py).
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from models.TextEncoder import TextEncoder
from utils import distributed
from utils.data.cache_file import read_cache, write_cache
from utils.data.clips import load_clips
from utils.datasets import Normalizer, TextMotionSet
from utils.errors import BadInput


def embed_prompts(texts, encoder_name, device, words=False):
    """N strings -> [N,E] on the device; with words [N,1+W,E], padded with zeros. Raises BadInput."""
    try:
        encoder = _encoder(encoder_name, device)
        return pad_sequence(encoder.encode_words(texts), batch_first=True) if words else encoder.encode(texts)
    except ValueError as error:
        raise BadInput(str(error)) from error


def check_width(encoder_name, width, trained_on, run):
    """BadInput if an encoder's vectors have another width than those that a run was trained on."""
    if width != trained_on:
        raise BadInput(
            f"--text_encoder {encoder_name} is {width} wide, {run} was trained on {trained_on}: "
            "leave the flag out"
        )


def truncated_texts(texts, encoder_name, device):
    """The texts whose ends the encoder does not read, because they have too many tokens."""
    return _encoder(encoder_name, device).truncated(texts)


@lru_cache(maxsize=1)
def _encoder(name, device):
    """The TextEncoder, kept so that its weights are loaded once."""
    return TextEncoder(name, device)


def embed_captions(clip_sets, encoder_name, root, device, words=False):
    """Every distinct caption of these lists of clips -> (mapping caption -> [E], or [1+W,E], on the CPU; E).

    Cached in the data set's folder. Warns of captions longer than the encoder reads. Raises BadInput.
    """
    captions = sorted({caption.text for clips in clip_sets for clip in clips for caption in clip.captions})
    file = Path(root) / "cache" / f"{'words' if words else 'text'}_{encoder_name}.npy"
    try:
        encoder = TextEncoder(encoder_name, device)
        return cached_embeddings(encoder, captions, file, words), encoder.dim
    except ValueError as error:
        raise BadInput(str(error)) from error


def captioned_sets(autoencoder, root, encoder_name, device, words, max_frames, seed):
    """The clips that a generator on this autoencoder learns from, with embedded captions.

    -> (train set, val set, text width). BadInput if the set was prepared anew after that.
    """
    spec, normalizer = autoencoder.spec, autoencoder.normalizer
    own = Normalizer.load(root, spec.dim) if (Path(root) / "Mean.npy").is_file() else normalizer
    pairs = (own.mean, normalizer.mean), (own.std, normalizer.std)
    if not all(torch.allclose(*pair, rtol=1e-3, atol=1e-4) for pair in pairs):  # more than rounding
        raise BadInput(
            f"{root} has other statistics (Mean.npy, Std.npy) than {autoencoder.path} was trained on: train "
            "the autoencoder anew, or bring its own data back"
        )
    with distributed.main_first():
        train_clips, val_clips = load_clips(spec, root, "train"), load_clips(spec, root, "val")
        text, width = embed_captions([train_clips, val_clips], encoder_name, root, device, words)
    train_set = TextMotionSet(train_clips, normalizer, text, max_frames, crop=True, seed=seed)
    # val has seed 0: the same captions in every run
    return train_set, TextMotionSet(val_clips, normalizer, text, max_frames), width


class Embeddings(Mapping):
    """caption -> [E], or with words [1+W,E], float32, from the rows of all captions.

    rows [N,E], possibly a memory map: float32, one per caption; with words float16, lengths[i] for the i-th.
    """

    def __init__(self, captions, lengths, rows, words):
        self.rows, self.words, ends = rows, words, np.cumsum(lengths)
        self.places = {
            text: (int(end) - n, int(end)) for text, n, end in zip(captions, lengths, ends, strict=True)
        }

    def __getitem__(self, caption):
        start, end = self.places[caption]
        rows = torch.from_numpy(self.rows[start:end].astype(np.float32))
        return rows if self.words else rows[0]

    def __len__(self):
        return len(self.places)

    def __iter__(self):
        return iter(self.places)


def cached_embeddings(encoder, captions, file, words=False):
    """Captions -> Embeddings, computed once and kept in `file`, which is memory-mapped.

    Missing captions are added. The file does not record which weights made it: remove it after setting the
    encoder's environment variable to others.
    """
    dtype = np.dtype(np.float16 if words else np.float32)

    def build(index, stream):
        np.lib.format.read_magic(stream)
        shape, _, stored = np.lib.format.read_array_header_1_0(stream)
        texts, lengths = index["captions"], index["lengths"]
        fits = shape == (sum(lengths), encoder.dim) and min(lengths, default=2) >= (2 if words else 1)
        if stored != dtype or not fits or not all(isinstance(text, str) for text in texts):
            raise ValueError("rows and index do not match")
        rows = np.memmap(stream, dtype, "r", stream.tell(), shape)
        if not words and not np.isfinite(rows).all():  # of words there may be gigabytes
            raise ValueError("rows are not finite")
        return Embeddings(texts, lengths, rows, words)

    remedy = "embedding the captions again"
    known = read_cache(file, build, remedy) or Embeddings([], [], np.zeros((0, encoder.dim), dtype), words)
    missing = sorted(set(captions) - set(known))
    if not missing:
        return known
    if cut := encoder.truncated(missing):
        more = f" and of {len(cut) - 1} more" if len(cut) > 1 else ""
        limit = encoder.spec.max_tokens
        print(f"warning: {encoder.name} reads {limit} tokens, not the end of {cut[0][:40]!r}...{more}")
    new = encoder.encode_words(missing) if words else encoder.encode(missing)[:, None]
    new = [rows.cpu().numpy().astype(dtype) for rows in new]
    lengths = [end - start for start, end in known.places.values()] + [len(rows) for rows in new]
    whole = Embeddings([*known, *missing], lengths, np.concatenate([known.rows, *new]), words)
    index = {"captions": list(whole), "lengths": lengths}
    kept = read_cache(file, build, remedy) if write_cache(file, index, whole.rows, remedy) else None
    return kept if kept and set(captions) <= set(kept) else whole  # another process may have replaced it
