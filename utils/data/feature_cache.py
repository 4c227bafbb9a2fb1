"""A split's motions and texts in one file, so that a later start does not open thousands of small ones.

<data set>/cache/<split>.npy (utils/data/cache_file.py) holds the rows of all clips one after another. A
signature in its index covers size and modification time of every source file: after a change the cache is
written again. It is read into memory as a whole (HumanML3D: 0.9 GB), so a run then needs no files.
"""

import contextlib
import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from utils.data.cache_file import read_cache, write_cache
from utils.errors import BadInput, unreadable

VERSION = 2
REMEDY = "packing the clips again"
MAX_VALUE = 1e6  # a kilometre in millimetres: nobody goes that far in a clip


def load_array(file):
    """np.load of a plain numeric array, BadInput in every other case (never unpickles)."""
    try:
        array = np.load(file, allow_pickle=False)
    except Exception as error:  # NumPy parses a header as Python: damage fails in many ways
        if isinstance(error, OSError) and error.strerror:
            raise unreadable(file, error) from None
        if not _has_signature(file):
            raise BadInput(f"{file} is no .npy file: write the array with numpy.save") from None
        # for a file that is no array NumPy's message says how to load it unsafely: cut that off
        reason = " ".join(str(error).partition(" If you trust")[0].split())[:200]
        raise BadInput(f"{file} is not a readable .npy array: {reason}") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise BadInput(f"{file} holds no plain numeric array")
    return array


def _has_signature(file):
    """Whether a file that cannot be loaded at least begins as a .npy file does."""
    with contextlib.suppress(OSError, ValueError), open(file, "rb") as opened:
        return opened.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX
    return True


def as_float32(array):
    """A float32 copy; values beyond MAX_VALUE become infinite, so that a check for infinity finds them."""
    with np.errstate(over="ignore"):
        rows = np.array(array, dtype=np.float32, order="C")
    rows[np.abs(rows) > MAX_VALUE] = np.inf
    return rows


@dataclass(frozen=True)
class CachedClip:
    """The files of one clip: motion [T,dim] float32; the content of its text file, or None; the reason why
    the motion cannot be used (then T = 0), or None."""

    motion: np.ndarray
    text: str | None
    problem: str | None


def read_clips(root, split, ids, dim):
    """The clips of a split, from its cache if the files have not changed since. -> {id: CachedClip}"""
    root = Path(root)
    signature, file = sign(root, ids, dim), root / "cache" / f"{split}.npy"
    cached = read_cache(file, partial(_rebuild, signature=signature, ids=ids, dim=dim), REMEDY)
    if cached is not None:
        return cached
    clips = {}
    for name in tqdm(ids, desc=f"packing {root}", unit="clip", leave=False, disable=len(ids) < 500):
        try:
            motion, problem = read_motion(root / "new_joint_vecs" / f"{name}.npy", dim), None
        except BadInput as error:
            motion, problem = np.zeros((0, dim), np.float32), str(error)
        clips[name] = CachedClip(motion, _read_text(root / "texts" / f"{name}.txt"), problem)
    index = {
        "signature": signature,
        "lengths": [len(clip.motion) for clip in clips.values()],
        "texts": [clip.text for clip in clips.values()],
        "problems": [clip.problem for clip in clips.values()],
    }
    write_cache(file, index, np.concatenate([clip.motion for clip in clips.values()]), REMEDY)
    return clips


def _rebuild(index, stream, signature, ids, dim):
    """-> {id: CachedClip}; None if the source files have changed since. Raises any error on damage."""
    if index["signature"] != signature:
        return None
    rows = np.load(stream, allow_pickle=False)
    lengths, texts, problems = index["lengths"], index["texts"], index["problems"]
    ends = np.cumsum([0, *lengths])
    if rows.dtype != np.float32 or rows.shape != (ends[-1], dim) or min(lengths, default=0) < 0:
        raise ValueError("rows and index do not match")
    if not all(x is None or isinstance(x, str) for x in (*texts, *problems)):
        raise ValueError("texts are no texts")
    parts = [rows[start:end] for start, end in zip(ends, ends[1:])]
    clips = [CachedClip(*fields) for fields in zip(parts, texts, problems, strict=True)]
    return dict(zip(ids, clips, strict=True))


def sign(root, ids, dim):
    """A hash of the ids and of each source file's size and modification time."""
    digest = hashlib.sha256(repr((VERSION, dim)).encode())
    for name in ids:
        for file in (root / "new_joint_vecs" / f"{name}.npy", root / "texts" / f"{name}.txt"):
            try:
                status = file.stat()
                digest.update(repr((name, status.st_size, status.st_mtime_ns)).encode())
            except (OSError, ValueError):  # absent, or no name that a file can have
                digest.update(repr((name, None)).encode())
    return digest.hexdigest()[:16]


def read_motion(file, dim):
    """The first `dim` columns of a motion file as float32 [T,dim]; BadInput with a short reason."""
    try:
        motion = load_array(file)
    except BadInput as error:
        raise BadInput(f"unreadable ({str(error).removeprefix(str(file)).strip()})") from None
    if motion.ndim != 2 or motion.shape[1] < dim:
        raise BadInput(f"wrong width (at least {dim} columns are needed)")
    motion = as_float32(motion[:, :dim])
    if not np.isfinite(motion).all():
        raise BadInput("NaN or infinite values")
    return motion


def _read_text(file):
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError):
        return None
