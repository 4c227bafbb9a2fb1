"""What every script shares: parser, types of flags, seed and device, and `run`, which calls its main."""

import argparse
import contextlib
import inspect
import math
import os
import re
import shlex
import signal
import sys
import threading
import traceback
from copy import copy
from pathlib import Path

import torch

from motion.files import write_json
from utils.errors import BadInput, system_error
from utils.plain import parse_json
from utils.randomness import reseed


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help texts show a default that is a list as one would type it, an empty one as "none"."""

    def _expand_help(self, action):
        if isinstance(action.default, list):
            action = copy(action)
            action.default = " ".join(map(str, action.default)) or "none"
        return super()._expand_help(action)


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line with exit code 2, and whose --help shows the script's
    docstring as it is written.
    """

    def __init__(self, doc, **kwargs):
        super().__init__(
            description=inspect.cleandoc(doc or ""),
            formatter_class=Formatter,
            allow_abbrev=False,
            **kwargs,
        )
        # "-1,2@3" is a value, not a flag; argparse by itself takes only lone numbers for values
        self._negative_number_matcher = re.compile(r"-\.?\d")

    def error(self, message):
        if missing := re.fullmatch(r"argument (--\w+): expected one argument", message):
            message += f'; one that begins with "-" is written {missing[1]}=-...'
        print(f"error: {message} (see {self.prog} --help)".replace("\n", " "), file=sys.stderr)
        sys.exit(2)


def number(kind, low=-math.inf, high=math.inf):
    """An argparse type: a finite number of `kind` in [low, high]."""

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
        if not low <= value <= high or value in (-math.inf, math.inf):  # NaN compares with nothing
            raise argparse.ArgumentTypeError(f"{text[:40]} is not between {low} and {high}")
        return value

    parse.kind, parse.low, parse.high = kind, low, high  # utils.pipeline checks against these
    return parse


def count(low=0, high=10**9):
    return number(int, low, high)


def name(text):
    """A run's or data set's name: one folder, never a path out of its parent."""
    if not text or text in (".", "..") or any(c in text for c in "/\\\0") or len(text.encode()) > 200:
        raise argparse.ArgumentTypeError(f"{text!r} is not a plain folder name")
    return text


def refuse_file(folder, flag):
    """BadInput if something else stands where `folder`, or one above it, has to be. flag: for the error."""
    there = next((place for place in (folder, *folder.parents) if os.path.lexists(place)), None)
    if there and not there.is_dir():
        raise BadInput(f"{flag}: {there} is no folder: name another place")


def start(machine):
    """Seed the generators, set TF32 and determinism. machine: a MachineConfig -> the torch.device to use."""
    reseed(machine.seed)
    for backend in (torch.backends.cuda.matmul, torch.backends.cudnn):
        backend.allow_tf32 = not machine.no_tf32
    deterministic(machine.deterministic)
    if machine.device == "auto":  # not mps: untested
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if not available[machine.device]:
        raise BadInput(f"--device {machine.device}: not available here; use --device cpu or auto")
    return torch.device(machine.device)


def deterministic(on):
    """Use deterministic kernels, or stop doing so. Where PyTorch has none, it only warns."""
    if on or torch.are_deterministic_algorithms_enabled():  # the call imports a compiler: a second
        torch.use_deterministic_algorithms(on, warn_only=True)
    if on:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # read when CUDA starts
        torch.backends.cudnn.benchmark = False


def command_line(module=None, argv=None):
    """This command as it was typed; for an experiment or a benchmark: python -m <module> and its argv."""
    first = ["python", "-m", module] if module else [Path(sys.argv[0]).name]
    return shlex.join([*first, *map(str, sys.argv[1:] if argv is None else argv)])


def write_opt_json(config, folder, resumed=False):
    """Write the command and its config (plain data) to opt.json in the run's folder; for a resumed run also
    the command that began it.
    """
    file, first = Path(folder) / "opt.json", command_line()
    if resumed and file.is_file():
        with contextlib.suppress(ValueError, AttributeError):  # edited by hand
            before = parse_json(file.read_text(encoding="utf-8"))
            first = before.get("begun_by", before.get("command", first))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {"command": command_line(), "begun_by": first, "flags": config})


def run(main, argv=None):
    """Run a script's main and exit: 0 done, 1 a defect of ours (traceback), 2 bad input (one line), 130 or
    143 interrupted (a training saves first).
    """
    threading.excepthook = hide_system_errors
    before = on_sigterm(terminate)
    # the console's encoding may lack letters of a prompt or bytes of a path ("surrogateescape": locale C)
    if getattr(sys.stdout, "errors", None) in ("strict", "surrogateescape"):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = main(argv)
        sys.stdout.flush()  # into a full disk or a closed pipe, perhaps
    except BadInput as error:
        code = print_error(error)
    except KeyboardInterrupt as stop:
        print("interrupted", file=sys.stderr)
        code = 143 if isinstance(stop, Terminated) else 130
    except Exception as error:
        if line := system_error(error):
            code = print_error(line)
        else:
            traceback.print_exc()
            print("This is a defect of FSQ-MARDM: please report it with the lines above.", file=sys.stderr)
            code = 1
    finally:
        on_sigterm(before)
    sys.exit(code or 0)


class Terminated(KeyboardInterrupt):
    """SIGTERM, handled like Ctrl-C, so that cleanup runs."""


def terminate(*_):
    raise Terminated


def on_sigterm(handler):
    """Install a SIGTERM handler -> the previous one. Does nothing in other threads, which must not."""
    if threading.current_thread() is not threading.main_thread():
        return handler
    return signal.signal(signal.SIGTERM, handler) or signal.SIG_DFL


def hide_system_errors(thread):
    """Show a thread's error only if our code is at fault. A full disk, say, in TensorBoard's thread reaches
    `run` as well, with the next value that is written.
    """
    if not system_error(thread.exc_value):
        threading.__excepthook__(thread)


def print_error(reason):
    """Print an error as one line. -> exit code 2"""
    reason = str(reason).strip()
    if "Original Traceback" in reason:  # wrapped by a data loading process
        reason = reason.splitlines()[-1].partition(": ")[2]
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)  # over what is left of a progress bar
    print(f"error: {reason}".replace("\n", " "), file=sys.stderr)
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        return 2
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains of standard output once more at exit
    return 2
