"""Inputs of the evaluators: words as 300-d vectors and one-hot parts of speech; captions as token ids.

The published evaluators use GloVe vectors from `glove/our_vab_{data.npy,words.pkl,idx.pkl}`. Where these are
absent, each word of a set's own vocabulary gets a fixed Gaussian vector, seeded by its spelling.
"""

import hashlib
import pickle
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from models.masking import lengths_to_mask
from models.TextEncoder import TEXT_ENCODERS, hub_library, local_folder
from utils.data.feature_cache import load_array
from utils.errors import BadInput

WORD_SIZE = 300
MAX_WORDS = 20  # of a caption, between `sos` and `eos` (Guo et al., CVPR 2022)
START, END, UNKNOWN = "sos", "eos", "unk"
MAX_PICKLE_BYTES = 64 * 2**20

# HumanML3D's convention: words that matter for motion have classes of their own in place of parts of speech.
PARTS_OF_SPEECH = (
    *("VERB", "NOUN", "DET", "ADP", "NUM", "AUX", "PRON", "ADJ", "ADV"),
    *("Loc_VIP", "Body_VIP", "Obj_VIP", "Act_VIP", "Desc_VIP", "OTHER"),
)
VIP_WORDS = {
    "Loc_VIP": "left right clockwise counterclockwise anticlockwise forward back backward up down straight "
    "curve",
    "Body_VIP": "arm chin foot feet face hand mouth leg waist eye knee shoulder thigh",
    "Obj_VIP": "stair dumbbell chair window floor car ball handrail baseball basketball",
    "Act_VIP": "walk run swing pick bring kick put squat throw hop dance jump turn stumble stop sit lift "
    "lower raise wash stand kneel stroll rub bend balance flap jog shuffle lean rotate spin spread climb",
    "Desc_VIP": "slowly carefully fast careful slow quickly happy angry sad happily angrily sadly",
}
_VIP_CLASS = {word: kind for kind, words in VIP_WORDS.items() for word in words.split()}
_POS_INDEX = {kind: index for index, kind in enumerate(PARTS_OF_SPEECH)}


@dataclass(frozen=True)
class WordVectors:
    """vectors [V,300] float32, index word -> row; a word that is not in it is read as `unk`."""

    vectors: torch.Tensor
    index: dict
    source: str  # "glove" or "hashed"

    @classmethod
    def hashed(cls, words):
        """Gaussian vectors for these words, each seeded by its spelling."""
        words = sorted({START, END, UNKNOWN, *words})
        return cls(
            torch.stack([_gaussian(word) for word in words]), {w: i for i, w in enumerate(words)}, "hashed"
        )

    @classmethod
    def published(cls, folder):
        """The published vectors: an array and the row of each word, in glove/our_vab_*."""
        folder = Path(folder)
        vectors = load_array(folder / "our_vab_data.npy")
        index = load_plain_pickle(folder / "our_vab_idx.pkl")
        fits = isinstance(index, dict) and all(
            isinstance(word, str) and isinstance(row, int) and 0 <= row < len(vectors)
            for word, row in index.items()
        )
        if vectors.ndim != 2 or vectors.shape[1] != WORD_SIZE or not fits or UNKNOWN not in index:
            raise BadInput(
                f"{folder}: our_vab_data.npy and our_vab_idx.pkl do not belong together; fetch them again"
            )
        return cls(torch.as_tensor(vectors, dtype=torch.float32), index, "glove")

    @property
    def vocabulary(self):
        return sorted(self.index)

    def __call__(self, captions):
        """Lists of word/POS tokens -> vectors [B,S,300], parts of speech [B,S,15], zero past lengths [B]."""
        rows = [[f"{START}/OTHER", *tokens[:MAX_WORDS], f"{END}/OTHER"] for tokens in captions]
        lengths = torch.tensor([len(row) for row in rows])
        read = [torch.tensor([self._read(token) for token in row]) for row in rows]
        words, kinds = nn.utils.rnn.pad_sequence(read, batch_first=True).unbind(dim=-1)  # [B,S] each
        inside = lengths_to_mask(lengths, words.shape[1])
        pos = nn.functional.one_hot(kinds, len(PARTS_OF_SPEECH))
        return self.vectors[words] * inside[..., None], pos * inside[..., None].float(), lengths

    def _read(self, token):
        """word/POS -> (row of the word, class of its part of speech)."""
        word, _, tag = token.rpartition("/")  # from the right: and/or/CCONJ is the word and/or
        if word not in self.index:
            return self.index[UNKNOWN], _POS_INDEX["OTHER"]
        return self.index[word], _POS_INDEX.get(_VIP_CLASS.get(word, tag), _POS_INDEX["OTHER"])


def word_vectors(folder, words):
    """The published vectors where `folder` has them, else hashed ones for `words`."""
    return WordVectors.published(folder) if has_published(folder) else WordVectors.hashed(words)


def has_published(folder):
    return (Path(folder) / "our_vab_data.npy").is_file()


def _gaussian(word):
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
    scale = 0.4  # about the standard deviation of a GloVe entry
    return torch.from_numpy(np.random.default_rng(seed).normal(0, scale, WORD_SIZE).astype(np.float32))


class WordTokens:
    """Captions -> token ids of a set's own words: the CLIP of a small set does not need 49,408 tokens.

    Id 0 pads, the largest id ends a caption (as the contrast model expects), the one before it stands for
    words that the vocabulary lacks.
    """

    def __init__(self, vocabulary, context=77):
        self.context, self.size = context, len(vocabulary) + 3
        self.ids = {word: i for i, word in enumerate(vocabulary, start=1)}

    def __call__(self, captions):
        tokens = torch.zeros(len(captions), self.context, dtype=torch.int64)
        for row, caption in enumerate(captions):
            ids = [self.ids.get(word, self.size - 2) for word in split_words(caption)][: self.context - 1]
            tokens[row, : len(ids) + 1] = torch.tensor([*ids, self.size - 1])
        return tokens


def split_words(caption):
    return re.findall(r"\w+", caption.lower())


class ClipTokens:
    """CLIP's own byte-pair tokens, for published weights: 77 ids, zero past the end token."""

    def __init__(self):
        spec = TEXT_ENCODERS["clip-vit-b32"]
        self.clean, self.context = spec.clean, spec.max_tokens
        self.tokenizer = hub_library().CLIPTokenizer.from_pretrained(
            local_folder(spec)[0] or spec.repository, local_files_only=True
        )

    def __call__(self, captions):
        rows = self.tokenizer(
            [self.clean(text) for text in captions], truncation=True, max_length=self.context
        )
        tokens = torch.zeros(len(captions), self.context, dtype=torch.int64)
        for row, ids in enumerate(rows["input_ids"]):
            tokens[row, : len(ids)] = torch.tensor(ids)
        return tokens


class _PlainUnpickler(pickle.Unpickler):
    """Lists, dicts, strings and numbers are built without a class: the allow-list of classes is empty."""

    def find_class(self, module, name):
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def load_plain_pickle(file):
    """The plain data in a pickle; nothing in the file is executed. Raises BadInput."""
    file = Path(file)
    try:
        if file.stat().st_size > MAX_PICKLE_BYTES:
            raise BadInput(f"{file} is larger than {MAX_PICKLE_BYTES} bytes: not the published word list")
        with open(file, "rb") as stream:
            return _PlainUnpickler(stream).load()
    except FileNotFoundError:
        raise BadInput(f"{file} does not exist: fetch the three our_vab files together") from None
    except BadInput:
        raise
    except pickle.UnpicklingError as error:
        raise BadInput(f"{file} is refused, it is no plain word list: {error}") from None
    except Exception as error:  # a damaged pickle fails in as many ways as there are bits to flip
        raise BadInput(f"{file} is damaged ({type(error).__name__}): fetch it again") from None
