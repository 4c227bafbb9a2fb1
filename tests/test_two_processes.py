"""Two processes and one train the same weights on the same global batches: the real scripts, over gloo."""

import os
import socket
import subprocess
import sys

import pytest
import torch

import prepare_dataset
import train_Evaluators
from tests.conftest import ROOT
from tests.test_scripts import call

# A process that runs several commands one after the other, in float64 if asked, and keeps what it ends with.
LAUNCHER = """
import sys, torch
kept, dtype, *lines = sys.argv[1:]
torch.set_default_dtype(getattr(torch, dtype))
import train_AE, train_MARDM, utils.datasets
from utils import distributed
from utils.training.training_loop import TrainingLoop

collate, finish = utils.datasets.collate, TrainingLoop.finish_epoch
def in_default_dtype(samples):
    batch = collate(samples)
    return batch._each(lambda x: x.to(torch.get_default_dtype()) if x.is_floating_point() else x)
def finish_and_keep(loop, metrics=None):
    finish(loop, metrics)
    state = {name: part.state_dict() for name, part in loop.parts.items()} | {"metrics": metrics}
    torch.save(state, f"{kept}/{loop.run.root.name}-{distributed.rank()}.pt")
utils.datasets.collate, TrainingLoop.finish_epoch = in_default_dtype, finish_and_keep
for line in lines:
    script, *flags = line.split()
    {"AE": train_AE, "MARDM": train_MARDM}[script].main(flags)
"""
AE = "AE --model {} --width 16 --window_size 200 --batch_size 19 --lr 1e-3 --log_every 5"
MARDM = "MARDM --ae_name {} --ae_model {} --model {} --dropout 0 --batch_size 19 --lr 1e-3 --log_every 5"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("processes")
    assert call(prepare_dataset.main, f"demo --clips 60 --name Tiny --dataset_dir {home}/datasets") == 0
    return home


def launch(home, processes, lines, dtype="float64"):
    """These commands in so many processes, with the environment that `torchrun` would give them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    where = f"--dataset_name Tiny --dataset_dir {home}/datasets --checkpoints_dir {home}/checkpoints"
    lines = [f"{line} {where} --device cpu --num_workers 0 --warm_up_iter 2" for line in lines]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "WORLD_SIZE": str(processes)}
    env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, str(home), dtype, *lines],
            env=env | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(processes)
    ]
    for process, said in [(process, process.communicate()[0]) for process in started]:
        assert process.returncode == 0, said[-3000:]


def flat(state, *keys):
    return torch.cat([x.flatten().double() for key in keys for x in state[key].values()])


def same_weights(home, names, keys, steps):
    """The largest difference from the first run; after `steps` steps, which moved the weights."""
    states = [torch.load(home / f"{name}.pt") for name in names]
    assert all(state["scheduler"]["last_epoch"] == steps for state in states)
    first, *others = [flat(state, *keys) for state in states]
    assert all(len(other) == len(first) for other in others) and first.abs().max() > 0.01
    return max(float((first - other).abs().max()) for other in others)


ALL = [(1, 1), (1, 2), (2, 1), (2, 2)]  # processes, pieces


@pytest.mark.parametrize("steps, ways", [(6, ALL[::3]), pytest.param(20, ALL, marks=pytest.mark.slow)])
def test_the_weights_do_not_depend_on_processes_and_pieces(home, steps, ways):
    """float64, no dropout, and an epoch's last batch that leaves a process without a clip."""
    first = f"AE{steps}-1x1"
    stages = AE.format("FSQ_AE_Small"), MARDM.format(first, "FSQ_AE_Small", "FSQ-MARDM-SiT-XS")
    for processes in (1, 2):
        lines = [
            f"{line} --name {model}{steps}-{processes}x{micro_batches} --grad_accum {micro_batches} --max_iters {steps}"
            for line, model in zip(stages, ("AE", "MARDM"))
            for there, micro_batches in ways
            if there == processes
        ]
        launch(home, processes, lines)
    for model, keys in (("AE", ["ae"]), ("MARDM", ["mardm"])):
        runs = [
            f"{model}{steps}-{p}x{micro_batches}-{rank}" for p, micro_batches in ways for rank in range(p)
        ]
        assert same_weights(home, runs, keys, steps) < 1e-9
        assert same_weights(home, runs[-2:], keys, steps) == 0.0  # the two ranks of one run
    lone, last = (torch.load(home / f"MARDM{steps}-{way}-0.pt") for way in ("1x1", "2x2"))
    torch.testing.assert_close(flat(lone, "ema_mardm"), flat(last, "ema_mardm"), rtol=0, atol=1e-6)


@pytest.mark.slow
def test_code_books_and_metrics_are_those_of_all_processes(home):
    """VQ restarts agree between processes, and an evaluation over two finds what one finds."""
    where = f"--dataset_name Tiny --dataset_dir {home}/datasets --checkpoints_dir {home}/checkpoints"
    flags = f"{where} --device cpu --num_workers 0"
    assert call(train_Evaluators.main, f"{flags} --max_iters 4 --batch_size 32 --dim 16") == 0
    vq = AE.format("VQ_AE_Model") + " --codebook_size 32 --max_iters 8"
    launch(home, 1, [f"{vq} --name alone"], "float32")
    launch(home, 2, [f"{vq} --name both", f"{vq} --name pieces --grad_accum 2"], "float32")
    for name in ("both", "pieces"):
        assert same_weights(home, [f"{name}-0", f"{name}-1"], ["ae"], 8) == 0.0
    alone, both, other = (
        torch.load(home / f"{name}.pt")["metrics"] for name in ("alone-0", "both-0", "both-1")
    )
    assert both == other and both.keys() == alone.keys()
    assert (both["n_real"], both["n_pred"]) == (alone["n_real"], alone["n_pred"])
    assert both["mpjpe"] == pytest.approx(alone["mpjpe"], rel=0.2)
