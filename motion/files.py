"""Atomic file writing."""

import contextlib
import json
import math
import os
import shutil
import uuid
from contextlib import contextmanager
from pathlib import Path

ENCODE = json.JSONEncoder(ensure_ascii=False).encode


class Unwritten(OSError):
    """A file or folder could not be written; the message is one line, the old content is untouched."""


@contextmanager
def atomic_file(path):
    """Yield a temporary path beside `path`, with its suffix; it is renamed only if the block succeeds.

    Raises Unwritten for any OSError, such as a full disk, so the block should do nothing but write. The
    temporary name is short and plain: a caption may fill the whole length that a file name can have, and
    FFmpeg would read a leading "caption:" as a protocol.
    """
    path = Path(path).absolute()
    part = path.parent / f".part-{uuid.uuid4().hex[:12]}{path.suffix}"
    try:
        with _unwritten(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield part
            with open(part, "rb+") as file:
                os.fsync(file.fileno())  # also the moment at which a network share admits that it is full
            os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):  # the error that brought us here is the one to hear of
            part.unlink(missing_ok=True)


@contextmanager
def whole_folder(path):
    """Yield an empty hidden folder beside `path` that replaces it if the block succeeds."""
    path = Path(path).absolute()
    part, old = (path.with_name(f".{path.name}.{kind}") for kind in ("part", "old"))

    def tidy():
        """Remove what a failed or killed process left; it may have stopped between the two renames."""
        if old.exists() and not path.exists():
            old.rename(path)
        for leftover in (part, old):
            if leftover.exists():
                shutil.rmtree(leftover)

    with _unwritten(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with folder_lock(path.parent):  # another process would take `part` for a leftover
        try:
            with _unwritten(path):
                tidy()
                part.mkdir()
                yield part
                if path.exists():
                    path.rename(old)
                part.rename(path)
        finally:
            with contextlib.suppress(OSError):
                tidy()


@contextmanager
def folder_lock(folder):
    """Hold an exclusive lock on a folder: other processes that ask for it wait until the block ends. No lock
    on Windows, nor where the file system has none."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            handle = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def _unwritten(path):
    """Convert write errors, also wrapped ones, to Unwritten."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause = error  # torch.save raises a RuntimeError of its own while it handles the disk's OSError
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__context__
        if cause is None or isinstance(cause, Unwritten):
            raise
        # NumPy's error has no errno
        reason = " ".join((cause.strerror or f"{cause}; is there space left?").split())
        raise Unwritten(f"cannot write {path}: {reason}; what was there before is untouched") from error


def write_text(path, text):
    """Write a text file in UTF-8. Lone surrogates, as from undecodable file names, appear as \\udcff."""
    with atomic_file(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def write_json(path, data):
    """Write plain data as JSON that people read: a list or object without others in it takes one line. NaN
    and infinity, which JSON does not have, become null.
    """
    write_text(path, _json(data, "\n") + "\n")


def _json(data, newline):
    if not isinstance(data, (dict, list, tuple)):
        return ENCODE(None if isinstance(data, float) and not math.isfinite(data) else data)
    values = data.values() if isinstance(data, dict) else data
    if any(isinstance(value, (dict, list, tuple)) for value in values):
        inner, comma = newline + " ", f",{newline} "
    else:
        newline, inner, comma = "", "", ", "
    parts = [_json(value, inner) for value in values]
    if not isinstance(data, dict):
        return f"[{inner}{comma.join(parts)}{newline}]"
    parts = [f"{ENCODE(str(key))}: {part}" for key, part in zip(data, parts)]
    return f"{{{inner}{comma.join(parts)}{newline}}}"
