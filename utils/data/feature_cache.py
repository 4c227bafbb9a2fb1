"""A data set's motions and texts packed into one file, so that a later start reads no small files.

The pack lies in <data set>/cache/: motions-<signature>.npy float32 [rows, dim] and packed.json, which names
it and says where each clip lies. The signature covers every source file's size and time of change, so that a
changed file makes a new pack. Both are written beside their place and renamed, the index last: two processes
may start at once.
"""

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from motion.files import Unwritten, whole_file, write_text
from utils.errors import BadInput
from utils.plain import parse_json

VERSION = 1
MAX_VALUE = 1e6  # a kilometre in millimetres: nobody goes that far in a clip


def load_array(file):
    """np.load of a plain numeric array, BadInput in every other case (never unpickles)."""
    try:
        array = np.load(file, allow_pickle=False)
    except FileNotFoundError:
        raise BadInput(f"{file} does not exist") from None
    except Exception as error:  # a header is Python's to parse, and fails in as many ways
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"{file} is not a readable .npy array: {reason}") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise BadInput(f"{file} holds no plain numeric array")
    return array


class Store:
    """float32 rows [n, dim] of a .npy, read where they are wanted; the file stays open, and so there.

    A memory map would be shorter, but where the file is cut short or a network share drops out it kills the
    process that touches it (SIGBUS), without a word.
    """

    def __init__(self, path):
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)  # its header, and that it is whole
        if mapped.dtype != np.float32 or mapped.ndim != 2:
            raise ValueError("no rows of float32")
        self.path, self.offset, self.shape = Path(path), mapped.offset, mapped.shape
        self.file = open(path, "rb", buffering=0)  # noqa: SIM115

    def __reduce__(self):
        return Store, (self.path,)  # another process opens its own

    def read(self, first, count):
        """-> [count, dim], read-only"""
        size = 4 * self.shape[1]
        try:
            data = self._bytes(self.offset + first * size, count * size)
        except OSError as error:
            raise BadInput(f"{self.path} cannot be read any more: {error.strerror}") from None
        if len(data) < count * size:
            raise BadInput(f"{self.path} was cut short while it was in use: start again, it is made anew")
        return np.frombuffer(data, np.float32).reshape(count, -1)

    def _bytes(self, offset, size):
        if hasattr(os, "pread"):  # leaves the position alone, which forked processes share
            return os.pread(self.file.fileno(), size, offset)
        self.file.seek(offset)  # Windows, where nothing is forked
        return self.file.read(size)


@dataclass(frozen=True)
class Stored:
    """The rows of one clip in a Store, for len() and slices; whole as an array."""

    store: Store
    first: int
    frames: int

    def __len__(self):
        return self.frames

    def __getitem__(self, rows):
        if not isinstance(rows, slice):
            return self[:][rows]
        start, stop, _ = rows.indices(self.frames)
        return self.store.read(self.first + start, max(stop - start, 0))

    def __array__(self, dtype=None, copy=None):
        return np.array(self[:], dtype)


def as_float32(array):
    """A copy in which what is beyond MAX_VALUE is infinite, so that one look for infinite values finds it."""
    with np.errstate(over="ignore"):
        rows = np.array(array, dtype=np.float32, order="C")
    rows[np.abs(rows) > MAX_VALUE] = np.inf
    return rows


@dataclass(frozen=True)
class Packed:
    """motions [rows, dim]; where each clip lies; its text; and why a clip cannot be used."""

    motions: np.ndarray | Store
    places: dict  # id -> [first row, number of rows]
    texts: dict  # id -> the whole text file, None where there is none
    broken: dict  # id -> reason

    def motion(self, name):
        """[T,dim]; from a Store, it is read when it is sliced."""
        first, frames = self.places[name]
        if isinstance(self.motions, Store):
            return Stored(self.motions, first, frames)
        return self.motions[first : first + frames]

    @classmethod
    def of(cls, root, ids, dim):
        """The pack of these clips, from disk where it is there and nothing has changed."""
        root, signature = Path(root), sign(root, ids, dim)
        return cls._read(root / "cache", signature, ids, dim) or cls._make(root, ids, dim, signature)

    @classmethod
    def _read(cls, folder, signature, ids, dim):
        try:
            index = parse_json((folder / "packed.json").read_text(encoding="utf-8"))
            if index["signature"] != signature:
                return None
            motions = Store(folder / f"motions-{signature}.npy")
            check_index(index, ids, motions.shape, dim)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
            reason = " ".join(str(error).split())[:100]
            print(f"{folder}: not a readable cache ({reason}); packing the clips again")
            return None
        return cls(motions, index["places"], index["texts"], index["broken"])

    @classmethod
    def _make(cls, root, ids, dim, signature):
        places, broken, motions, row = {}, {}, [], 0
        for name in tqdm(ids, desc=f"packing {root}", unit="clip", leave=False, disable=len(ids) < 500):
            try:
                motion = usable(root / "new_joint_vecs" / f"{name}.npy", dim)
            except BadInput as error:
                broken[name] = str(error)
                continue
            places[name] = [row, len(motion)]
            motions.append(motion)
            row += len(motion)
        packed = np.concatenate(motions) if motions else np.zeros((0, dim), np.float32)
        index = {"signature": signature, "places": places, "broken": broken}
        index["texts"] = {name: read_text(root / "texts" / f"{name}.txt") for name in places}
        try:
            cls._write(root / "cache", packed, index)
        except Unwritten as error:
            print(f"{error}; the next start packs the set again")
        return cls(packed, places, index["texts"], broken)

    @staticmethod
    def _write(folder, packed, index):
        data = folder / f"motions-{index['signature']}.npy"
        with whole_file(data) as part, open(part, "wb") as file:
            np.save(file, packed)
        write_text(folder / "packed.json", json.dumps(index))
        for stale in folder.glob("motions-*.npy"):
            if stale != data:
                with contextlib.suppress(OSError):  # in use elsewhere on Windows; the next pack removes it
                    stale.unlink()


def check_index(index, ids, shape, dim):
    """Every clip has its place within the rows, and its text, or a reason why not; else an error."""
    places, texts, broken = index["places"], index["texts"], index["broken"]
    inside = all({type(a), type(n)} == {int} and 0 <= a <= a + n <= shape[0] for a, n in places.values())
    said = all(text is None or isinstance(text, str) for text in texts.values())
    if shape[1:] != (dim,) or not inside or not said or places.keys() != texts.keys():
        raise ValueError("rows, places and texts do not match")
    if not {*ids} <= {*places, *broken} or not all(isinstance(reason, str) for reason in broken.values()):
        raise ValueError("clips are missing")


def sign(root, ids, dim):
    """A hash of what the pack depends on: the ids, and each source file's size and time of change."""
    found = hashlib.sha256(repr((VERSION, dim)).encode())
    for name in ids:
        for file in (root / "new_joint_vecs" / f"{name}.npy", root / "texts" / f"{name}.txt"):
            try:
                status = file.stat()
                found.update(repr((name, status.st_size, status.st_mtime_ns)).encode())
            except (OSError, ValueError):  # absent, or no name that a file can have
                found.update(repr((name, None)).encode())
    return found.hexdigest()[:16]


def usable(file, dim):
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


def read_text(file):
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError):
        return None
