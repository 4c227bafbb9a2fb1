"""kill -9 at any moment: latest.tar always loads, and the resumed run ends with the very tensors."""

import multiprocessing
import os
import random
import resource
import signal
import sys
import time
from functools import partial

import pytest
import torch

import prepare_dataset
import train_AE
import train_MARDM
from tests.test_scripts import call, same_tensors
from utils.checkpoints import load_state
from utils.cli import run
from utils.training.training_loop import TrainingLoop

AE = "--model FSQ_AE_Small --width 16 --batch_size 16 --window_size 196"
MARDM = "--ae_name tokens --ae_model FSQ_AE_Small --model FSQ-MARDM-SiT-XS --batch_size 8"
SCRIPTS = {"AE": (train_AE.main, AE), "MARDM": (train_MARDM.main, MARDM)}
OPEN_END = "--epoch 100000 --max_iters 0"
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["tests.test_kill"]
)  # every sitting is a process of its own, without its imports


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A small set, and an autoencoder for the generator; epochs of few steps, so that their ends are met."""
    home = tmp_path_factory.mktemp("killed")
    assert call(prepare_dataset.main, f"demo --clips 60 --name Tiny --dataset_dir {home}/datasets") == 0
    assert call(train_AE.main, f"{flags(home, AE, 'tokens')} --epoch 1 --max_iters 2") == 0
    return home


def flags(home, line, name, workers=0):
    where = f"--dataset_name Tiny --dataset_dir {home}/datasets --checkpoints_dir {home}/checkpoints"
    how = f"--device cpu --num_workers {workers} --warm_up_iter 5 --log_every 2 --save_every 3"
    return f"{line} --name {name} {where} {how}"


class Run:
    """One training run in several sittings, each a process."""

    def __init__(self, home, script, name, workers=0):
        self.main, line = SCRIPTS[script]
        self.flags = flags(home, line, name, workers)
        self.model = home / "checkpoints/Tiny" / name / "model"
        self.latest = self.model / "latest.tar"

    def start(self, more=OPEN_END, trap=None):
        """A process that trains, and an event that is set when it has taken its first step."""
        stepped = SERVER.Event()
        resumed = "--is_continue" if self.latest.is_file() else ""
        line = f"{self.flags} {more} {resumed}"
        process = SERVER.Process(target=sitting, args=(self.main, line.split(), stepped, trap))
        process.start()
        return process, stepped

    def sit(self, more=OPEN_END, trap=None):
        """A sitting to its end -> its exit code, negative where a signal ended it."""
        process, _ = self.start(more, trap)
        process.join()
        return process.exitcode

    def steps(self):
        """Of the last save, which has to load; 0 before the first."""
        return load_state(self.latest)["total_it"] if self.latest.is_file() else 0


def sitting(main, argv, stepped, trap):
    """What the process does. trap: has it die by its own hand."""
    torch.set_num_threads(1)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    gradient_step = TrainingLoop.optimizer_step

    def tell(loop, optimizer):
        gradient_step(loop, optimizer)
        stepped.set()

    TrainingLoop.optimizer_step = tell
    if trap:
        trap()
    run(main, argv)


def ends_as_if_never_killed(killed, home, script):
    """Let the run go on for a few steps, and another take as many in one go: the same tensors, no litter."""
    steps = killed.steps() + 4
    whole = Run(home, script, f"{killed.model.parent.name}-whole")
    for either in (killed, whole):
        assert either.sit(f"--epoch 100000 --max_iters {steps}") == 0
        assert either.steps() == steps
        left = {file.name for file in either.model.iterdir() if "tfevents" not in file.name}
        assert left == {"latest.tar", "latest.prev.tar"}
    assert same_tensors(killed.latest, whole.latest) == []


def dies_at_operation(nth):
    """A trap: SIGKILL at the nth file operation of a save; exit code 7 where a save has fewer."""
    save, seen = TrainingLoop.save, None

    def watch(event, _):
        nonlocal seen
        if seen is not None and event in ("open", "os.link", "os.remove", "os.rename", "shutil.copyfile"):
            seen += 1
            if seen == nth:
                os.kill(os.getpid(), signal.SIGKILL)

    def watched(loop):
        nonlocal seen
        seen = 0
        save(loop)
        os._exit(7)

    sys.addaudithook(watch)
    TrainingLoop.save = watched


def dies_half_written(size):
    """A trap: the kernel ends the process when it has written `size` bytes of a file."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_kill_at_any_moment_of_a_save_loses_nothing(home):
    """Before and after every file operation, and with the file half written."""
    killed = Run(home, "AE", "saves")
    assert killed.sit("--epoch 100000 --max_iters 7") == 0
    for nth in range(1, 100):
        code, before = killed.sit(trap=partial(dies_at_operation, nth)), killed.steps()
        if code == 7:
            break
        assert code == -signal.SIGKILL
    assert nth > 4 and killed.steps() == before
    half = killed.latest.stat().st_size // 2
    assert killed.sit(trap=partial(dies_half_written, half)) == -signal.SIGXFSZ
    assert killed.steps() == before
    ends_as_if_never_killed(killed, home, "AE")


@pytest.mark.parametrize(
    "script, kills, workers",
    [
        ("AE", 3, 0),
        pytest.param("AE", 20, 0, marks=pytest.mark.slow),
        pytest.param("MARDM", 20, 0, marks=pytest.mark.slow),
        pytest.param("MARDM", 6, 2, marks=pytest.mark.slow),
    ],
)
def test_kill_9_at_random_moments(home, script, kills, workers):
    draw = random.Random(f"{script} {kills} {workers}")
    killed, before = Run(home, script, f"{script}-{kills}-{workers}", workers), 0
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
    ends_as_if_never_killed(killed, home, script)


def wait_for_another(file, process):
    """Until `file` is replaced, or there at all."""

    def which():
        return file.stat().st_ino if file.is_file() else None

    now = which()
    while which() == now:
        assert process.is_alive()
        time.sleep(0.005)
