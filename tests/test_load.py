"""Two hundred requests in a row: memory after the last is that after the twentieth, give or take 50 MB, and
no more files are open. By default forty; `run_tests.sh --all` asks for all."""

import json
import os
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT
from tests.test_app import call, serving, written
from utils.generation.app_backend import KEPT_RESULTS

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no /proc here")
MANY = [40, pytest.param(200, marks=pytest.mark.slow)]
ACTIONS = ("walks forward", "jumps", "waves with the left hand", "turns right", "kicks")


def size(pid="self"):
    """(resident MB, open files) of a process."""
    with open(f"/proc/{pid}/statm") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return resident, len(os.listdir(f"/proc/{pid}/fd"))


def at_rest(pid):
    """`size` once the connection of the last answer is closed, which its reader does not wait for."""
    seen = []
    for _ in range(20):
        seen.append(size(pid))
        time.sleep(0.1)
    return seen[-1][0], min(files for _, files in seen)


def check(early, late):
    (memory, files), (memory_later, files_later) = early, late
    print(f"after 20: {memory:.0f} MB, {files} files; at the end: {memory_later:.0f} MB, {files_later} files")
    assert memory_later <= memory + 50
    assert files_later == files


@pytest.mark.parametrize("many", MANY)
def test_the_page(demo_weights, tmp_path, many):
    """Over HTTP, as browsers and programs ask; one in six is refused."""
    home = tmp_path / "home"
    home.mkdir()
    with serving(demo_weights, home) as (port, server):
        for number in range(1, many + 1):
            prompt = f"a person {ACTIONS[number % 5]} {number}"
            event, data = call(port, prompt, False, 2 + number % 3, number, 1.0, 1, 1 + number % 2)
            assert event == "complete", data
            if number % 5 == 0:
                assert call(port, "", True, 4, number, 1.0, 1, 1)[0] == "error"
            if number == 20:
                early = at_rest(server.pid)
        check(early, at_rest(server.pid))
        results = {path.parent for path in written(home) if path.suffix == ".bvh"}
        assert len(results) <= 2 * KEPT_RESULTS  # each once as it was made, once as it is served


COUNTED = """
import json, sys
import sample
from tests.test_load import size


sizes, export = [], sample.export_motion


def counted(*args, **kwargs):
    files = export(*args, **kwargs)
    sizes.append(size())
    return files


sample.export_motion = counted
sample.main(sys.argv[1:])
print(json.dumps([sizes[19], sizes[-1], len(sizes)]))
"""


@pytest.mark.parametrize("many", MANY)
def test_prompts_of_sample(demo_weights, tmp_path, many):
    prompts = tmp_path / "prompts.txt"
    lines = [f"a person {ACTIONS[i % 5]} {i} times#{24 + 4 * (i % 20)}" for i in range(many)]
    prompts.write_text("\n".join(lines))
    flags = (
        f"--demo --checkpoints_dir {demo_weights} --device cpu --text_path {prompts} --time_steps 2 --cfg 1"
    )
    flags += f" --sampler euler --sampler_steps 1 --batch_size 8 --export npy html --output_dir {tmp_path}"
    command = [sys.executable, "-c", COUNTED, *flags.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    early, late, count = json.loads(done.stdout.splitlines()[-1])
    assert count == many
    check(early, late)
