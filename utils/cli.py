"""Parser, checked types, device and record of a run, and the one door through which a script runs."""

import argparse
import json
import math
import os
import shlex
import sys
import traceback
from pathlib import Path

import torch

from utils.errors import BadInput
from utils.train_utils import reseed


class Parser(argparse.ArgumentParser):
    """Errors are one line and exit with 2; --help shows the script's docstring as it stands and every
    default.
    """

    def __init__(self, doc, **kwargs):
        super().__init__(
            description=doc,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **kwargs,
        )

    def error(self, message):
        print(f"error: {message} (see {self.prog} --help)".replace("\n", " "), file=sys.stderr)
        sys.exit(2)


def number(kind, low=-math.inf, high=math.inf):
    """An argparse type: a finite number of `kind` in [low, high]."""

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
        if not (math.isfinite(value) and low <= value <= high):
            raise argparse.ArgumentTypeError(f"{text} is not between {low} and {high}")
        return value

    return parse


def count(low=0, high=10**9):
    return number(int, low, high)


def name(text):
    """A run's or data set's name: one folder, never a path out of its parent."""
    if not text or text in (".", "..") or any(c in text for c in "/\\\0") or len(text.encode()) > 200:
        raise argparse.ArgumentTypeError(f"{text!r} is not a plain folder name")
    return text


def start(args):
    """Seed, precision and device of a run. -> torch.device"""
    reseed(args.seed)
    for backend in (torch.backends.cuda.matmul, torch.backends.cudnn):
        backend.allow_tf32 = not args.no_tf32
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if args.device == "auto":
        return torch.device(next(kind for kind, here in available.items() if here))
    if not available[args.device]:
        raise BadInput(f"--device {args.device}: not available here; use --device cpu or auto")
    return torch.device(args.device)


def record(args, folder):
    """Write the command and every flag beside the run: opt.json."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    write_text(folder / "opt.json", json.dumps({"command": command, "flags": vars(args)}, indent=1))


def write_text(path, text):
    """Write a text file whole or not at all. What is no UTF-8, from a file name perhaps, as \\udcff."""
    part = Path(path).with_name(Path(path).name + ".part")
    part.write_text(text, encoding="utf-8", errors="backslashreplace")
    os.replace(part, path)


def run(main, argv=None):
    """Run a script's main and exit: 0 done, 2 bad input (one line), 1 our fault, 130/143 interrupted but
    saved.
    """
    try:
        code = main(argv)
    except BadInput as error:
        print(f"error: {error}".replace("\n", " "), file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except Exception:
        traceback.print_exc()
        print("This is a defect of FSQ-MARDM: please report it with the lines above.", file=sys.stderr)
        code = 1
    sys.exit(code or 0)
