"""The contract: success, or exit 2 with one line that begins with "error:"; no traceback, no half file.

A case works in a folder of its own: a copy of the home with tiny data and weights (`tests.fuzz.home`), which
it may damage first. `{home}` in its words is that folder; `{home}/out` is where results go.
"""

import contextlib
import importlib
import io
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.conftest import ROOT
from tests.fuzz.canary import PLACE
from utils.cli import run

SECONDS = 20
MEMORY = 1.5 * 2**30  # bytes that one case may add to the peak of the process
ADDRESSES = 12 * 2**30  # bytes of address space for a real process
BAR = re.compile(r"\[\d+:\d+[<,]|\d+%\|| \d+it ")  # of tqdm: no message
RECORDS = re.compile(r"/(opt\.json|eval\.log|events\.out\.tfevents[^/]*|cache/[^/]*|\.[^/]*\.work/[^/]*)$")
UNFINISHED = re.compile(r"\.part$|/\.part-|\.spare$|/\.[^/]*\.(part|old)(/|$)")


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
    own_folder: bool = True  # what the parser refuses touches no file

    def __str__(self):
        return f"{self.kind}: {self.name}"


@dataclass(frozen=True)
class Outcome:
    case: Case
    code: int | None
    seconds: float
    error: str
    problems: tuple[str, ...]  # what breaks the contract

    def __str__(self):
        return f"{self.case}: {'; '.join(self.problems)}"


class TookTooLong(BaseException):
    """Not an Exception, so that nothing catches it on the way."""


@contextlib.contextmanager
def time_limit(seconds):
    """Of work, so that a busy machine breaks no contract; a hang without work has ten times as long."""

    def stop(*_):
        raise TookTooLong

    timers = {
        signal.SIGPROF: (signal.ITIMER_PROF, seconds),
        signal.SIGALRM: (signal.ITIMER_REAL, 10 * seconds),
    }
    previous = {number: signal.signal(number, stop) for number in timers}
    for timer, limit in timers.values():
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for number, (timer, _) in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, previous[number])


def copy_home(home, folder):
    """Hard links: scripts replace files, never write into them, and whoever damages one replaces it too."""

    def link(source, target):
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)

    shutil.copytree(home, folder, copy_function=link)


def prepare(case, home, folder):
    """-> (the folder of the case, its words)"""
    if case.own_folder:
        copy_home(home, folder)
    else:
        folder = home
    if case.spoil:
        case.spoil(folder)
    return folder, [word.replace("{home}", str(folder)) for word in case.words]


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def attempt(case, home, folder):
    """The case through main(argv), in this process. -> Outcome"""
    folder, words = prepare(case, home, folder)
    before, memory, begun = files_below(folder), peak(), time.process_time()
    out, err, code, problems = io.StringIO(), io.StringIO(), None, []
    main = importlib.import_module(case.script).main
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), time_limit(SECONDS):
            run(main, words)
    except SystemExit as exit_:
        code = exit_.code
    except TookTooLong:
        problems.append(f"still at work after {SECONDS} s")
    seconds = time.process_time() - begun
    if peak() - memory > MEMORY:
        problems.append(f"took {(peak() - memory) / 2**30:.1f} GiB")
    return evaluated(case, code, seconds, err.getvalue(), problems, files_below(folder) - before)


def attempt_as_process(case, home, folder):
    """The same as a program of its own, with little address space."""
    folder, words = prepare(case, home, folder)
    before, begun = files_below(folder), time.perf_counter()
    done = subprocess.run(
        [sys.executable, *command(case.script), *words],
        cwd=ROOT,
        capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=limit_process,
    )
    seconds, err = time.perf_counter() - begun, done.stderr.decode("utf-8", "replace")
    return evaluated(case, done.returncode, seconds, err, [], files_below(folder) - before)


def limit_process():
    """Address space and CPU time; starting Python and PyTorch takes seconds of its own."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CPU, (2 * SECONDS, 2 * SECONDS))


def command(script):
    return [f"{script}.py"] if (ROOT / f"{script}.py").is_file() else ["-m", script]


def evaluated(case, code, seconds, stderr, problems, made):
    stderr = re.sub(r"\x1b\[\w", "", stderr)  # where bars move the cursor
    micro_batches = map(str.strip, re.split(r"[\r\n]+", stderr))  # a bar that has ended leaves blanks
    lines = [piece for piece in micro_batches if piece and not BAR.search(piece)]
    problems = list(problems)
    if "Traceback" in stderr:
        problems.append(f"traceback: {lines[-2] if len(lines) > 1 else lines[-1]}"[:300])
    elif code not in (0, 2) and not problems:
        problems.append(f"exit code {code}: {lines[-1:]}")
    elif code == 2 and (len(lines) != 1 or not lines[0].startswith("error: ")):
        problems.append(f"{len(lines)} lines on stderr: {lines[:3]}")
    elif code == 2 and case.mentions not in lines[0]:
        problems.append(f"does not mention {case.mentions}: {lines[0]}")
    elif code == 0 and lines:
        problems.append(f"success, but on stderr: {lines[0][:200]}")
    if case.expect is not None and code in (0, 2) and code != case.expect:
        problems.append(f"ended with {code}, not {case.expect}: {''.join(lines)[:200]}")
    unfinished = [file for file in made if UNFINISHED.search(file)]
    results = [file for file in made if not RECORDS.search(file)] if code == 2 else []
    if unfinished or results:
        problems.append(f"left behind {', '.join(sorted(unfinished or results)[:3])}")
    motions = [file for file in made if "/out/" in file and file.endswith(".npy")]
    if code == 0 and not all(np.isfinite(np.load(file)).all() for file in motions):
        problems.append("success, and NaN in what was written")
    if PLACE.exists():
        PLACE.rmdir()
        problems.append("code in a file was run")
    return Outcome(case, code, seconds, "".join(lines)[:400], tuple(problems))


def files_below(folder):
    return {os.path.join(root, name) for root, _, names in os.walk(folder) for name in names}
