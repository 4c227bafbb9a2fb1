"""A cache on disk: a JSON index, then rows, as two arrays in one .npy; a damaged one is made anew."""

import json

import numpy as np

from motion.files import Unwritten, atomic_file
from utils.plain import parse_json


def read_cache(file, build, remedy):
    """-> build(index, stream), where the stream is at the array of rows; None without a file. If it is
    damaged, None and a printed line. remedy: what happens then. Nothing in the file is executed.
    """
    try:
        with open(file, "rb") as stream:
            return build(parse_json(bytes(np.load(stream, allow_pickle=False)).decode()), stream)
    except FileNotFoundError:
        return None
    except Exception as error:  # NumPy parses a header as Python: damage fails in many ways
        print(f"{file}: not a readable cache ({' '.join(str(error).split())[:100]}); {remedy}")
        return None


def write_cache(file, index, rows, remedy):
    """Save index and rows; if that fails, only print why. -> whether it was written"""
    try:
        with atomic_file(file) as part, open(part, "wb") as stream:
            np.save(stream, np.frombuffer(json.dumps(index).encode(), np.uint8))
            np.save(stream, rows)
        return True
    except Unwritten as error:
        print(f"{error}; {remedy} at the next start")
        return False
