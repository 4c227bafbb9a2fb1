"""Whose fault an error is: what was given, the machine, or our code."""

import errno

import torch

from motion.files import Unwritten


class BadInput(Exception):
    """Bad flags, files or data. The message is one line: what is wrong, in which file, what to do about it.

    `utils.cli.run` prints it without a traceback and exits with 2; any other exception is our fault (exit 1).
    """


RIGHTS = "choose a place that you may write to, or mend its rights"
MASK_RATIO = "the disk or the network share failed; run the command again when it is back"
REMEDIES = {  # of what a machine can refuse, whatever the code does
    errno.ENOSPC: "make room and run the command again",
    errno.EDQUOT: "make room and run the command again",
    errno.EFBIG: "the system limits the size of a file here (ulimit -f)",
    errno.EACCES: RIGHTS,
    errno.EPERM: RIGHTS,
    errno.EROFS: RIGHTS,
    errno.ENOENT: "it is not there; was it moved or removed while the command ran?",
    errno.ENOTDIR: "a part of this path is a file, not a folder",
    errno.EISDIR: "this is a folder, not a file",
    errno.EEXIST: "something else stands there",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "its links lead in a circle",
    errno.EIO: MASK_RATIO,
    errno.ESTALE: MASK_RATIO,
    errno.ENOTCONN: MASK_RATIO,
    errno.ETIMEDOUT: MASK_RATIO,
    errno.EMFILE: "raise the limit of open files (ulimit -n), or pass fewer --num_workers",
    errno.ENFILE: "too many files are open on this machine",
    errno.ENOMEM: "pass a smaller --batch_size or fewer --num_workers",
    errno.EPIPE: "nobody reads the output any more",
}
SPENT = {  # what PyTorch says, as plain RuntimeErrors, when the machine has no more to give
    "can't allocate memory": "out of memory: pass a smaller --batch_size",
    "DataLoader worker (pid": "a data loading process was ended by the system, for want of memory perhaps: "
    "pass fewer --num_workers",
    "unable to allocate shared memory": "the shared memory (/dev/shm) is full: pass --num_workers 0",
}


def system_error(error):
    """An error that the machine's owner can mend -> one line that says how; None where our code is wrong."""
    if isinstance(error, Unwritten):
        return str(error)
    if isinstance(error, OSError) and error.errno in REMEDIES:
        what = f"{error.filename}: " if error.filename else ""
        return f"{what}{error.strerror}: {REMEDIES[error.errno]}"
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return "out of memory: pass a smaller --batch_size"
    if isinstance(error, RuntimeError):
        return next((line for words, line in SPENT.items() if words in str(error)), None)
    return None
