"""samples.json: what it takes to draw the motions of a call again, and their files."""

import hashlib
import json
import math
import time

from motion.files import write_text
from utils.plain import parse_json


class Record:
    """The entry of one call in samples.json: what it takes to draw its motions again, and their files."""

    PAUSE = 1.0  # seconds between two writings

    def __init__(self, path, **fields):
        self.path, self.written = path, -math.inf
        self.call = fields | {"motions": []}
        try:
            self.before = parse_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            self.before = []
        except ValueError:
            print(f"{path} was not readable and is begun anew")
            self.before = []

    def add(self, motion):
        """A motion whose files are written. On disk at once, or with the next one after a pause."""
        self.call["motions"].append(motion)
        if time.monotonic() - self.written > self.PAUSE:
            self.write()

    def write(self):
        write_text(self.path, json.dumps([*self.before, self.call], indent=1, ensure_ascii=False) + "\n")
        self.written = time.monotonic()


def sha256(path):
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
        return digest.hexdigest()
