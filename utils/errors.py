"""Errors by their cause: the input (BadInput), the machine (system_error), or our code (all others)."""

import errno

import torch

from motion.files import Unwritten


class BadInput(Exception):
    """Bad flags, files or data. The message is one line: what is wrong, in which file, what to do about it.

    `utils.cli.run` prints it without a traceback and exits with 2; any other exception is our fault (exit 1).
    """


def unreadable(where, error):
    """-> BadInput for an OSError of reading a file. where: the file, after its flag if that is known."""
    if isinstance(error, FileNotFoundError):
        return BadInput(f"{where} does not exist")
    return BadInput(f"{where} cannot be read: {error.strerror or error}")


OURS = {errno.EBADF, errno.EINVAL, errno.EFAULT, errno.ESPIPE}  # system calls that our code made wrongly
OUT_OF_MEMORY = "out of memory: pass a smaller --batch_size; where there is none, fewer or shorter motions"
SPENT = {  # parts of RuntimeErrors of PyTorch and Python when the machine runs out of memory -> our message
    **dict.fromkeys(
        [
            "can't allocate memory",
            "CUDA error: out of memory",
            "MPS backend out of memory",
            "CUBLAS_STATUS_ALLOC_FAILED",
        ],
        OUT_OF_MEMORY,
    ),
    "process pool was terminated": "a process was ended by the system, for want of memory perhaps: "
    "pass fewer --num_workers",
    "DataLoader worker (pid": "a data loading process was ended by the system, for want of memory perhaps: "
    "pass fewer --num_workers",
    "unable to allocate shared memory": "the shared memory (/dev/shm) is full: pass --num_workers 0",
}


def system_error(error):
    """One line for an error that the user's machine caused (disk, memory); None where our code is wrong."""
    if isinstance(error, Unwritten):
        return str(error)
    if isinstance(error, OSError) and error.strerror and error.errno not in OURS:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return OUT_OF_MEMORY
    if isinstance(error, RuntimeError):
        return next((line for words, line in SPENT.items() if words in str(error)), None)
    return None
