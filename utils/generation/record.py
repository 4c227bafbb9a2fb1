"""samples.json: what it takes to draw the motions of a call again, and their files."""

import hashlib
import json
import math
import time

from motion.files import alone, write_text
from utils.plain import parse_json


class Record:
    """The entry of one call in samples.json: what it takes to draw its motions again, and their files.

    Other calls may write theirs at the same time.
    """

    PAUSE = 1.0  # seconds between two writings

    def __init__(self, path, **fields):
        self.path, self.written = path, -math.inf
        self.call = fields | {"motions": []}
        self.last = None  # the entry as it stands in the file

    def add(self, motion):
        """A motion whose files are written. On disk at once, or with the next one after a pause."""
        self.call["motions"].append(motion)
        if time.monotonic() - self.written > self.PAUSE:
            self.write()

    def write(self):
        with alone(self.path.parent):
            calls = self._calls()
            place = calls.index(self.last) if self.last in calls else len(calls)
            calls[place : place + 1] = [self.call]
            write_text(self.path, json.dumps(calls, indent=1, ensure_ascii=False) + "\n")
        self.last, self.written = parse_json(json.dumps(self.call)), time.monotonic()

    def _calls(self):
        """What stands in the file."""
        try:
            calls = parse_json(self.path.read_text(encoding="utf-8"))
            if not isinstance(calls, list):
                raise ValueError("no list of calls")
        except FileNotFoundError:
            return []
        except ValueError:
            print(f"{self.path} was not readable and is begun anew")
            return []
        return calls


def sha256(path):
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
        return digest.hexdigest()
