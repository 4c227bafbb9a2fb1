"""Opening a checkpoint: tensors and plain data come out, nothing in the file is executed.

torch.load(weights_only=True) does the reading, with an allow-list of our own for the two names under which
older files keep NumPy numbers; both stand for functions of this module, so that NumPy's are never called.
"""

import pickle
import re
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch

from utils.errors import BadInput
from utils.plain import is_number
from utils.runs import CONSTANT


class _NumberType:
    """Stands in for numpy.dtype, for plain numbers only."""

    def __init__(self, code, *_):
        code = code.decode("ascii", "replace") if isinstance(code, bytes) else code
        if not isinstance(code, str) or not re.fullmatch(r"[biuf][1248]", code):
            raise pickle.UnpicklingError(f"it holds a NumPy number of type {code!r}")
        self.type = np.dtype(code)

    def __setstate__(self, state):
        order = state[1].decode() if isinstance(state[1], bytes) else state[1]
        if order in ("<", ">"):
            self.type = self.type.newbyteorder(order)


def _number(kind, data):
    """Stands in for NumPy's scalar: bytes -> a Python number."""
    data = data.encode("latin-1") if isinstance(data, str) else data
    return np.frombuffer(data, kind.type, count=1)[0].item()


AGAIN = ": fetch or copy it again"
MIN_STD = 1e-6  # a division by less would give anything
ALLOWED = [
    (_NumberType, "numpy.dtype"),
    (_number, "numpy.core.multiarray.scalar"),  # NumPy 1
    (_number, "numpy._core.multiarray.scalar"),  # NumPy 2
]


def load_state(path):
    """A checkpoint's dict of tensors and primitives, on the CPU. Raises BadInput, which names the file."""
    path = Path(path)
    try:
        refuse_other_files(path)
        refuse_flipped_bits(path)
        with torch.serialization.safe_globals(ALLOWED), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; real problems are errors
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist") from None
    except pickle.UnpicklingError:
        raise BadInput(
            f"{path} is not a safe checkpoint (it holds code or foreign objects) or is damaged"
        ) from None
    except Exception as error:  # a damaged file fails in as many ways as there are bits to flip
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BadInput(f"{path} is truncated or damaged ({reason}){AGAIN}") from None
    if not isinstance(state, dict):
        raise BadInput(f"{path} holds no dictionary: not a checkpoint of this project")
    return state


def refuse_other_files(path):
    """ValueError unless it begins as torch.save's files do: a zip archive, or, before 1.6, a pickle."""
    with open(path, "rb") as file:
        if file.read(2) not in (b"PK", b"\x80\x02"):
            raise ValueError("no checkpoint begins as it does")


def refuse_flipped_bits(path):
    """ValueError on a wrong checksum: torch.save writes one per tensor, torch.load does not check it."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged:
            raise ValueError(f"the checksum of {damaged} is another")


class State:
    """What a checkpoint says, field by field, each checked before anything is built from it.

    Every method raises BadInput with the file's name. A field that is absent or None is `default`.
    """

    def __init__(self, fields, path, where=""):
        if not isinstance(fields, dict):
            raise BadInput(f"{path}: {where or 'its content'} is no dictionary, the checkpoint is damaged")
        self.fields, self.path, self.where = fields, path, where

    def _value(self, key, wanted, fits, default=None):
        value = self.fields.get(key)
        if value is None:
            return default
        if not fits(value):
            said = f"{self.where}{key} is {repr(value)[:40]}, not {wanted}"
            raise BadInput(f"{self.path}: {said}: the checkpoint is damaged")
        return value

    def part(self, key):
        """The dictionary at `key` as a State; empty if absent."""
        inner = self.fields.get(key)
        return State({} if inner is None else inner, self.path, f"{key}: ")

    def whole(self, key, low, high, default=None):
        """An int in [low, high]."""
        wanted = f"a whole number from {low} to {high}"
        return self._value(key, wanted, lambda x: type(x) is int and low <= x <= high, default)

    def number(self, key, default=None):
        return self._value(key, "a number", is_number, default)

    def text(self, key, default=None):
        return self._value(key, "text", lambda x: isinstance(x, str), default)

    def numbers(self, key):
        """A dict of finite numbers, or None."""
        inner = self.part(key)
        for name in inner.fields:
            inner.number(name)
        return inner.fields or None

    def list_of(self, key, kind, fits=lambda value: True):
        """A list whose entries have the type `kind` and fit, or None."""

        def right(values):
            return isinstance(values, (list, tuple)) and all(type(x) is kind and fits(x) for x in values)

        values = self._value(key, f"a list of {kind.__name__}", right)
        return None if values is None else list(values)

    def flagged(self, one):
        """The value of a config's field that is a flag, within what the flag accepts, or None."""
        kind = one.metadata.get("type")
        if kind is None:
            return self.text(one.name)

        def fits(value):
            return type(value) in (int, kind.kind) and kind.low <= value <= kind.high

        if one.metadata.get("nargs") == "+":
            self._value(one.name, "a list of at least one", lambda values: values)
        if "nargs" in one.metadata:
            return self.list_of(one.name, kind.kind, fits)
        return self._value(one.name, f"a number from {kind.low} to {kind.high}", fits)

    def row(self, key, dim, positive=False):
        """dim finite numbers, float32 [dim], within what a motion can have; positive: at least MIN_STD."""
        value = self.fields.get(key)
        if (
            not sound(value)
            or value.shape != (dim,)
            or (value.abs() > 1e6).any()
            or (positive and not (value >= MIN_STD).all())
        ):
            raise BadInput(f"{self.path}: {self.where}{key} is not {dim} finite numbers: it is damaged")
        return value.float()

    def weights(self, key, what):
        """The state_dict at `key`, all of whose tensors are sound. what: for the message."""
        found = self.fields.get(key)
        if found is None:
            raise BadInput(f"{self.path} has no key '{key}': not a checkpoint of {what}")
        return check_weights(found, self.path)


def misfit(module, weights):
    """How a state_dict that does not load differs from the module's, in one line."""
    own = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    theirs = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    parts = []
    for name in [name for name in own if name in theirs and own[name] != theirs[name]][:1]:
        parts.append(f"{name} has the sizes {theirs[name]}, not {own[name]}")
    own = {name: sizes for name, sizes in own.items() if not name.endswith(CONSTANT)}
    for what, names in (
        ("lacks", own.keys() - theirs.keys()),
        ("has besides", theirs.keys() - module.state_dict().keys()),
    ):
        if names:
            more = f" and {len(names) - 1} others" if len(names) > 1 else ""
            parts.append(f"it {what} {min(names)}{more}")
    return "; ".join(parts) or "it cannot be read into it"


def sound(tensor):
    """A dense tensor of finite real numbers, in float32 too."""
    if not torch.is_tensor(tensor) or tensor.layout != torch.strided or tensor.is_meta:
        return False
    if tensor.is_complex() or tensor.is_quantized:
        return False
    stored = tensor.untyped_storage().nbytes() // tensor.element_size()
    if tensor.numel() > stored:  # it repeats its numbers, and could claim any size
        tensor = tensor.as_strided((stored,), (1,), 0)
    return bool(tensor.float().isfinite().all())


def check_weights(weights, path):
    """Return a state_dict; BadInput unless it consists of names and tensors of finite numbers."""
    if not isinstance(weights, dict):
        raise BadInput(f"{path}: its weights are no dictionary, the checkpoint is damaged")
    for name, tensor in weights.items():
        if not isinstance(name, str) or not sound(tensor):
            raise BadInput(f"{path}: {name} holds no finite numbers: it is damaged, or its training diverged")
    return weights
