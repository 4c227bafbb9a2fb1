"""Pickles that would do something, if anybody let them."""

import os
import tempfile
from pathlib import Path

PLACE = Path(tempfile.gettempdir()) / f"fsq-mardm-canary-{os.getpid()}"


class Canary:
    """Unpickled, it makes the folder PLACE."""

    def __reduce__(self):
        return os.mkdir, (str(PLACE),)
