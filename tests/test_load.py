"""Many requests in a row: memory after the last is that after the twentieth (of the page: the sixtieth), give
or take 50 MB, and no more files are open."""

import os
import time

import pytest

import sample
from tests.test_app import call, serving, written
from tests.tiny import as_process
from utils.app.backend import KEPT_RESULTS
from utils.cli import run

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no /proc here")
ACTIONS = ("walks forward", "jumps", "waves with the left hand", "turns right", "kicks")


def size(pid="self"):
    """(resident MB, open files) of a process."""
    with open(f"/proc/{pid}/statm") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return resident, len(os.listdir(f"/proc/{pid}/fd"))


def at_rest(pid):
    """`size` once the connection of the last answer is closed, which its reader does not wait for."""
    sizes = []
    for _ in range(20):
        sizes.append(size(pid))
        time.sleep(0.1)
    return sizes[-1][0], min(files for _, files in sizes)


def check(early, late):
    assert late[0] <= early[0] + 50, (early, late)
    assert late[1] == early[1], (early, late)


@pytest.mark.slow
def test_the_page(demo_weights, tmp_path):
    """Over HTTP, as browsers and programs ask; one in six is refused."""
    home = tmp_path / "home"
    home.mkdir()
    with serving(demo_weights, home) as (port, server):
        for number in range(1, 201):
            prompt = f"a person {ACTIONS[number % 5]} {number}"
            event, data = call(port, prompt, False, 2 + number % 3, number, 1.0, 1, 1 + number % 2)
            assert event == "complete", data
            if number % 5 == 0:
                assert call(port, "", True, 4, number, 1.0, 1, 1)[0] == "error"
            if number == 60:  # by then the event loops of its start are collected, with their files
                early = at_rest(server.pid)
        check(early, at_rest(server.pid))
        results = {path.parent for path in written(home) if path.suffix == ".bvh"}
        assert len(results) <= KEPT_RESULTS  # none is copied to be served: its folder is Gradio's as well


def measured(many, words):
    """sample.py, its size read after every motion it writes."""
    sizes, export = [], sample.export_motion

    def counted(*args, **kwargs):
        files = export(*args, **kwargs)
        sizes.append(size())
        return files

    sample.export_motion = counted
    try:
        run(sample.main, words)
    finally:
        assert len(sizes) == many
        check(sizes[19], sizes[-1])


@pytest.mark.parametrize("many", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_prompts_of_sample(demo_weights, tmp_path, many):
    prompts = tmp_path / "prompts.txt"
    lines = [f"a person {ACTIONS[i % 5]} {i} times#{24 + 4 * (i % 20)}" for i in range(many)]
    prompts.write_text("\n".join(lines))
    flags = f"--demo --checkpoints_dir {demo_weights} --device cpu --text_path {prompts} --time_steps 2"
    flags += " --cfg 1 --sampler euler --sampler_steps 1 --batch_size 8 --export npy html"
    code, output = as_process(measured, many, [*flags.split(), "--output_dir", str(tmp_path)])
    assert code == 0, output[-2000:]
