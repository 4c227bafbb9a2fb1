"""The contract: success, or exit 2 with one line that begins with "error:"; no traceback, no half file.

A case works in a folder of its own: a copy of the home (tests/fuzz/home.py), which it may damage first.
`{home}` in its words is that folder; `{home}/out` is where results go.
"""

import contextlib
import importlib
import io
import os
import re
import resource
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.tiny import linked
from utils.cli import run

SECONDS = 20
MEMORY = 1.5 * 2**30  # bytes that one case may add to the peak of the process
BAR = re.compile(r"\[\d+:\d+[<,]|\d+%\|| \d+it ")  # of tqdm: no message
RECORDS = re.compile(r"/(opt\.json|eval\.log|events\.out\.tfevents[^/]*|cache/[^/]*|\.[^/]*\.work/[^/]*)$")
UNFINISHED = re.compile(r"\.part$|/\.part-|\.spare$|/\.[^/]*\.(part|old)(/|$)")
PLACE = Path(tempfile.gettempdir()) / f"fsq-mardm-canary-{os.getpid()}"


class Canary:
    """Unpickled, it makes the folder PLACE."""

    def __reduce__(self):
        return os.mkdir, (str(PLACE),)


@dataclass(frozen=True)
class Case:
    """One command. expect: 0 or 2 where only one of them is right; mentions: what the error has to name."""

    kind: str
    name: str
    script: str  # its module
    words: tuple[str, ...]
    spoil: Callable[[Path], None] | None = None
    expect: int | None = None
    mentions: str = ""

    def __str__(self):
        return f"{self.kind}: {self.script}, {self.name}"


class TookTooLong(BaseException):
    """Not an Exception, so that nothing catches it on the way."""


@contextlib.contextmanager
def time_limit(seconds):
    """Of work, so that a busy machine breaks no contract; a hang without work has ten times as long."""

    def stop(*_):
        raise TookTooLong

    timers = [
        (signal.SIGPROF, signal.ITIMER_PROF, seconds),
        (signal.SIGALRM, signal.ITIMER_REAL, 10 * seconds),
    ]
    previous = [signal.signal(number, stop) for number, _, _ in timers]
    for _, timer, limit in timers:
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for (number, timer, _), handler in zip(timers, previous):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def attempt(case, home, folder):
    """The case through main(argv), in this process. -> what breaks the contract"""
    words, before, memory = prepare(case, home, folder), files_below(folder), peak()
    code, err, problems = None, io.StringIO(), []
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err), time_limit(SECONDS):
            run(importlib.import_module(case.script).main, words)
    except SystemExit as exit_:
        code = exit_.code
    except TookTooLong:
        problems.append(f"still at work after {SECONDS} s")
    if peak() - memory > MEMORY:
        problems.append(f"took {(peak() - memory) / 2**30:.1f} GiB")
    return problems + list(broken(case, code, err.getvalue(), files_below(folder) - before))


def prepare(case, home, folder):
    """Makes and damages the folder of the case. -> its words"""
    linked(home, folder)
    if case.spoil:
        case.spoil(folder)
    return [word.replace("{home}", str(folder)) for word in case.words]


def broken(case, code, stderr, made):
    """What breaks the contract, given the exit code, stderr and the files that were made."""
    pieces = map(str.strip, re.split(r"[\r\n]+", re.sub(r"\x1b\[\w", "", stderr)))
    lines = [piece for piece in pieces if piece and not BAR.search(piece)]
    if "Traceback" in stderr:
        yield f"traceback: {lines[-2] if len(lines) > 1 else lines[-1]}"[:300]
    elif code not in (0, 2):
        yield f"exit code {code}: {lines[-1:]}"
    elif code == 2 and (len(lines) != 1 or not lines[0].startswith("error: ")):
        yield f"{len(lines)} lines on stderr: {lines[:3]}"
    elif code == 2 and case.mentions not in lines[0]:
        yield f"does not mention {case.mentions}: {lines[0]}"
    elif code == 0 and lines:
        yield f"success, but on stderr: {lines[0][:200]}"
    if case.expect not in (None, code):
        yield f"ended with {code}, not {case.expect}: {''.join(lines)[:200]}"
    results = [file for file in made if not RECORDS.search(file)] if code == 2 else []
    unfinished = [file for file in made if UNFINISHED.search(file)] or results
    if unfinished:
        yield f"left behind {', '.join(sorted(unfinished)[:3])}"
    motions = [file for file in made if "/out/" in file and file.endswith(".npy")]
    if code == 0 and not all(np.isfinite(np.load(file)).all() for file in motions):
        yield "success, and NaN in what was written"
    if PLACE.exists():
        PLACE.rmdir()
        yield "code in a file was run"


def files_below(folder):
    return {os.path.join(root, name) for root, _, names in os.walk(folder) for name in names}
