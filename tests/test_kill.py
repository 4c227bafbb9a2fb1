"""kill -9 at any moment: latest.tar always loads, and the resumed run ends with the very tensors."""

import os
import random
import resource
import shutil
import signal
import sys
import time

import pytest
import torch

import train_AE
import train_MARDM
from tests.test_training_loop import Rehearsal
from tests.tiny import PAIR, SERVER, different_tensors, linked, where
from utils.cli import run
from utils.safe_load import load_state
from utils.training.training_loop import TrainingLoop

SCRIPTS = {
    "AE": (  # a cosine would depend on where the run is to end, which differs between the sittings
        train_AE.main,
        "--model FSQ_AE_Small --width 16 --batch_size 8 --window_size 196 --schedule milestones",
    ),
    "MARDM": (train_MARDM.main, f"{PAIR} --batch_size 8"),
}
OPEN_END = "--epoch 100000 --max_iters 0"


class Run:
    """One training run in several sittings, each a process."""

    def __init__(self, home, script, name, workers=0):
        self.main, line = SCRIPTS[script]
        how = f"--num_workers {workers} --warm_up_iter 5 --log_every 2 --save_every 3"
        self.flags = f"{line} --name {name} {where(home)} {how}"
        self.model = home / "checkpoints/Demo" / name / "model"
        self.latest = self.model / "latest.tar"

    def start(self, more=OPEN_END):
        """A process that trains, and an event that is set when it has taken its first step."""
        stepped = SERVER.Event()
        resumed = "--is_continue" if self.latest.is_file() else ""
        process = SERVER.Process(target=sitting, args=(self.main, f"{self.flags} {more} {resumed}", stepped))
        process.start()
        return process, stepped

    def steps(self):
        """Steps of the last save, which has to load; 0 before the first."""
        return load_state(self.latest)["total_it"] if self.latest.is_file() else 0


def sitting(main, line, stepped):
    """What the process of a sitting runs; `stepped` is set after its first step."""
    torch.set_num_threads(1)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    optimizer_step = TrainingLoop.optimizer_step

    def notify(loop, optimizer):
        optimizer_step(loop, optimizer)
        stepped.set()

    TrainingLoop.optimizer_step = notify
    run(main, line.split())


@pytest.mark.parametrize(
    "script, kills, workers",
    [
        ("AE", 3, 0),
        pytest.param("AE", 20, 0, marks=pytest.mark.slow),
        pytest.param("MARDM", 20, 0, marks=pytest.mark.slow),
        pytest.param("MARDM", 6, 2, marks=pytest.mark.slow),
    ],
)
def test_kill_9_at_random_moments(world, tmp_path, script, kills, workers):
    """Afterwards the run goes on for four steps; another run takes all its steps in one go."""
    home = linked(world, tmp_path / "home")
    for folder in (home / "checkpoints/Demo").glob("text_mot_match*"):
        shutil.rmtree(folder)  # epochs are short and end without an evaluation
    draw = random.Random(f"{script} {kills} {workers}")
    killed, before = Run(home, script, "killed", workers), 0
    for number in range(kills):
        process, stepped = killed.start()
        since = draw.choice(["start", "first step", "first save"]) if number else "first save"
        if since == "first step":
            assert stepped.wait(60)
        if since == "first save":
            wait_for_another(killed.latest, process)
        time.sleep(draw.uniform(0, 0.5))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert killed.steps() >= before
        before = killed.steps()
    assert before > 0
    whole = Run(home, script, "whole")
    for either in (killed, whole):
        process, _ = either.start(f"--epoch 100000 --max_iters {before + 4}")
        process.join()
        assert process.exitcode == 0 and either.steps() == before + 4
        left = {file.name for file in either.model.iterdir() if "tfevents" not in file.name}
        assert left == {"latest.tar", "latest.prev.tar"}
    assert different_tensors(killed.latest, whole.latest) == []


def wait_for_another(file, process):
    """Wait until `file` is replaced, or made for the first time."""

    def which():
        return file.stat().st_ino if file.is_file() else None

    now = which()
    while which() == now:
        assert process.is_alive()
        time.sleep(0.005)


def forked_save(loop, trap):
    """Save in a process of its own that `trap` ends. Returns its exit code, negative for a signal."""
    pid = os.fork()
    if not pid:
        trap()
        loop.save()
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_kill_at_any_moment_of_a_save_loses_nothing(tmp_path):
    """Before every file operation, after the last, and with the file half written."""
    run = Rehearsal(tmp_path, max_iters=5, save_every=2).train().run
    loop = Rehearsal(tmp_path, is_continue=True).loop
    size = run.latest.stat().st_size
    before = loop.progress.total_it

    def dies_at_operation(event, _):
        nonlocal countdown
        if event in ("open", "os.link", "os.remove", "os.rename", "shutil.copyfile"):
            countdown -= 1
            if countdown == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def dies_half_written():
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))

    for nth in range(1, 100):
        countdown, loop.progress.total_it = nth, before + 1
        code = forked_save(loop, lambda: sys.addaudithook(dies_at_operation))
        assert load_state(run.latest)["total_it"] in (before, before + 1)
        if code == 7:
            break
        assert code == -signal.SIGKILL
    assert nth > 4 and load_state(run.latest)["total_it"] == before + 1
    assert forked_save(loop, dies_half_written) == -signal.SIGXFSZ
    assert load_state(run.latest)["total_it"] == before + 1
    assert Rehearsal(tmp_path, is_continue=True).loop.progress.total_it == before + 1
    assert not list(run.model.glob(".part-*"))
