"""samples.json: for each call, what is needed to reproduce its motions, and their files."""

import itertools
import json
import math
import time

from motion.files import folder_lock, write_json
from utils.plain import parse_json
from utils.runs import file_hash


class Record:
    """The entry of one call in samples.json. Other calls may write theirs at the same time."""

    PAUSE = 1.0  # seconds between two saves

    def __init__(self, path, **fields):
        self.path, self.written = path, -math.inf
        self.call = fields | {"motions": []}
        self.last = None  # the entry as it stands in the file

    def add(self, motion):
        """Add a motion whose files are written; saved at once, or with a later one if one was just saved."""
        self.call["motions"].append(motion)
        if time.monotonic() - self.written > self.PAUSE:
            self.write()

    def write(self):
        """Save the entry as it is now, if it has a motion."""
        if not self.call["motions"]:
            return
        with folder_lock(self.path.parent):
            calls = self._calls()
            place = calls.index(self.last) if self.last in calls else len(calls)
            calls[place : place + 1] = [self.call]
            write_json(self.path, calls)
        self.last, self.written = parse_json(json.dumps(self.call)), time.monotonic()

    def _calls(self):
        """The entries in the file; an unreadable file is renamed."""
        try:
            calls = parse_json(self.path.read_text(encoding="utf-8"))
            if not isinstance(calls, list):
                raise ValueError("no list of calls")
        except FileNotFoundError:
            return []
        except ValueError:
            aside = unused(self.path.with_name(f"{self.path.name}.unreadable"))
            self.path.rename(aside)
            print(f"{self.path} was not readable: it is kept as {aside.name}, and a new one begun")
            return []
        return calls


def unused(path):
    """The path if no file has it, else with the first number appended that none has."""
    numbered = (path.with_name(f"{path.name}{n}") for n in itertools.count(2))
    return next(one for one in itertools.chain([path], numbered) if not one.exists())


def hashes(paths):
    """-> {path as text: SHA-256 of the file}"""
    return {str(path): file_hash(path) for path in paths}
