"""Import this first in a script: without PyTorch it exits with one line on how to get it."""

from importlib.util import find_spec

if find_spec("torch") is None:
    raise SystemExit(
        "error: this Python has no PyTorch: source .venv/bin/activate (bash scripts/setup.sh makes .venv)"
    )
