"""Two processes and one train the same weights on the same global batches: the real scripts, over gloo."""

import os
import shutil
import socket

import pytest
import torch

import train_AE
import train_MARDM
import utils.data.batches
from tests.tiny import PAIR, SERVER, where
from utils import distributed
from utils.training import token_statistics
from utils.training.training_loop import TrainingLoop

AE = "--model {} --width 16 --window_size 200 --batch_size 15 --lr 1e-3 --log_every 5"
MARDM = f"{PAIR} --dropout 0 --batch_size 15 --lr 1e-3 --log_every 5"


def worker(folder, rank, processes, port, dtype, commands):
    """A process that runs commands (main, line) one after the other and keeps what each ends with."""
    os.environ |= {"WORLD_SIZE": str(processes), "RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    torch.set_num_threads(1)
    torch.set_default_dtype(dtype)
    collate, finish = utils.data.batches.collate, TrainingLoop.finish_epoch

    def in_default_dtype(samples):
        return collate(samples)._each(lambda x: x.to(dtype) if x.is_floating_point() else x)

    def finish_and_keep(loop, metrics=None):
        finish(loop, metrics)
        state = {name: part.state_dict() for name, part in loop.parts.items()} | {"metrics": metrics}
        torch.save(state, f"{folder}/{loop.run.root.name}-{distributed.rank()}.pt")

    utils.data.batches.collate = token_statistics.collate = in_default_dtype
    TrainingLoop.finish_epoch = finish_and_keep
    for main, line in commands:
        main(line.split())


def launch(world, folder, processes, commands, dtype=torch.float64):
    """These commands in so many processes, with the environment that a launcher would give them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    flags = f"{where(world, folder)} --warm_up_iter 2"
    commands = [(main, f"{line} {flags}") for main, line in commands]
    started = [
        SERVER.Process(target=worker, args=(folder, rank, processes, port, dtype, commands))
        for rank in range(processes)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join()
        assert process.exitcode == 0


def flat(state, *keys):
    return torch.cat([x.flatten().double() for key in keys for x in state[key].values()])


def same_weights(home, names, keys, steps):
    """The largest difference from the first run; after `steps` steps, which moved the weights."""
    states = [torch.load(home / f"{name}.pt") for name in names]
    assert all(state["scheduler"]["last_epoch"] == steps for state in states)
    first, *others = [flat(state, *keys) for state in states]
    assert all(len(other) == len(first) for other in others) and first.abs().max() > 0.01
    return max(float((first - other).abs().max()) for other in others)


ALL = [(1, 1), (1, 2), (2, 1), (2, 2)]  # processes, micro-batches


@pytest.mark.parametrize("steps, ways", [(4, ALL[::3]), pytest.param(20, ALL, marks=pytest.mark.slow)])
def test_the_weights_do_not_depend_on_processes_and_micro_batches(world, tmp_path, steps, ways):
    """float64, no dropout, and an epoch's last batch that leaves a process without a clip."""
    for processes in (1, 2):
        commands = []
        for there, micro in ways:
            if there == processes:
                more = f"--grad_accum {micro} --max_iters {steps}"
                ae = "AE-1x1"
                commands += [
                    (train_AE.main, f"{AE.format('FSQ_AE_High')} --name AE-{there}x{micro} {more}"),
                    (train_MARDM.main, f"{MARDM} --ae_name {ae} --name MARDM-{there}x{micro} {more}"),
                ]
        launch(world, tmp_path, processes, commands)
    for model in ("AE", "MARDM"):
        runs = [f"{model}-{p}x{micro}-{rank}" for p, micro in ways for rank in range(p)]
        assert same_weights(tmp_path, runs, [model.lower()], steps) < 1e-9
        assert same_weights(tmp_path, runs[-2:], [model.lower()], steps) == 0.0  # two ranks of one run
    lone, last = (torch.load(tmp_path / f"MARDM-{way}-0.pt") for way in ("1x1", "2x2"))
    torch.testing.assert_close(flat(lone, "ema_mardm"), flat(last, "ema_mardm"), rtol=0, atol=1e-6)


@pytest.mark.slow
def test_code_books_and_metrics_are_those_of_all_processes(world, tmp_path):
    """VQ restarts agree between processes, and an evaluation over two finds what one finds."""
    shutil.copytree(world / "checkpoints/Demo/text_mot_match", tmp_path / "Demo/text_mot_match")
    vq = AE.format("VQ_AE_Model") + " --codebook_size 32 --max_iters 8 --name"
    launch(world, tmp_path, 1, [(train_AE.main, f"{vq} alone")], torch.float32)
    both = [(train_AE.main, f"{vq} {more}") for more in ("both", "split --grad_accum 2")]
    launch(world, tmp_path, 2, both, torch.float32)
    for name in ("both", "split"):
        assert same_weights(tmp_path, [f"{name}-0", f"{name}-1"], ["ae"], 8) == 0.0
    alone, both, other = (
        torch.load(tmp_path / f"{n}.pt")["metrics"] for n in ("alone-0", "both-0", "both-1")
    )
    assert both == other and both.keys() == alone.keys()
    assert (both["n_real"], both["n_pred"]) == (alone["n_real"], alone["n_pred"])
    assert both["mpjpe"] == pytest.approx(alone["mpjpe"], rel=0.2)
