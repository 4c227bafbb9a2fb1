"""Opening a checkpoint: tensors and plain data come out, nothing in the file is executed.

torch.load(weights_only=True) does the reading, with an allow-list of our own for the two names under which
older files keep NumPy numbers; both stand for functions of this module, so that NumPy's are never called.
"""

import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import torch

from utils.errors import BadInput


class _NumberType:
    """Stands in for numpy.dtype, of plain numbers alone."""

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


ALLOWED = [
    (_NumberType, "numpy.dtype"),
    (_number, "numpy.core.multiarray.scalar"),  # NumPy 1
    (_number, "numpy._core.multiarray.scalar"),  # NumPy 2
]


def load_state(path, map_location="cpu"):
    """A checkpoint's dict of tensors and primitives. Raises BadInput, which names the file."""
    path = Path(path)
    try:
        refuse_flipped_bits(path)
        with torch.serialization.safe_globals(ALLOWED):
            state = torch.load(path, map_location=map_location, weights_only=True)
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist") from None
    except pickle.UnpicklingError:
        raise BadInput(
            f"{path} is not a safe checkpoint (it holds code or foreign objects) or is damaged"
        ) from None
    except Exception as error:  # a damaged file fails in as many ways as there are bits to flip
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BadInput(f"{path} is truncated or damaged ({reason})") from None
    if not isinstance(state, dict):
        raise BadInput(f"{path} holds no dictionary: not a checkpoint of this project")
    return state


def refuse_flipped_bits(path):
    """torch.save writes a checksum of every tensor, which torch.load does not look at."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged:
            raise ValueError(f"the checksum of {damaged} is another")
