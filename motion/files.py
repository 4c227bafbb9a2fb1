"""Files are written whole or not at all."""

import os
import uuid
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path):
    """Yields a temporary path beside `path`, with its suffix; it takes the name only if the block succeeds.

    The temporary name is short and plain: a caption may fill the whole length that a file name can have, and
    FFmpeg would read a leading "caption:" as a protocol.
    """
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.parent / f".part-{uuid.uuid4().hex[:12]}{path.suffix}"
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
