"""The same seed gives the same bits: train, sample and evaluate by real commands, in two processes, with
other numbers of workers."""

import json
import os

import numpy as np
import pytest
import torch

import evaluation_AE
import evaluation_MARDM
import sample
import train_AE
from tests.tiny import PAIR, as_process, call, different_tensors, linked, train, where
from utils.cli import run, start


def everything(home, out, trained, *more):
    """An evaluator and both stages, unless `trained`; samples; both evaluations. Into `out`."""
    flags = f"{where(home, out)} {' '.join(more)}"
    if not trained:
        train(flags, "train_Evaluators", "train_AE", "train_MARDM")
    mardm = f"{flags} --name MARDM {PAIR}"
    prompt = f"--text_prompt walk --motion_length 40 --repeat_times 3 --export npy --output_dir {out}/made"
    assert call(sample.main, f"{mardm} --time_steps 4 {prompt}") == 0
    assert call(evaluation_AE.main, f"{flags} --name AE --model FSQ_AE_High --repeat_times 2") == 0
    assert call(evaluation_MARDM.main, f"{mardm} --time_steps 3 --repeat_times 2") == 0


@pytest.fixture(scope="module")
def first(world, tmp_path_factory):
    """The folder of checkpoints, samples and evaluations that this process made."""
    out = linked(world / "checkpoints", tmp_path_factory.mktemp("deterministic") / "first")
    everything(world, out, True)
    return out


def results(folder):
    """Every repeat of both evaluations, and the samples."""
    files = [folder / "Demo" / name / "eval/eval.json" for name in ("AE", "MARDM")]
    motions = [np.load(file).tolist() for file in sorted((folder / "made/MARDM_Demo").glob("*.npy"))]
    assert len(motions) == 3
    return [json.loads(file.read_text())["rows"] for file in files], motions


@pytest.mark.parametrize("more", ["--num_workers 2", pytest.param("--deterministic", marks=pytest.mark.slow)])
def test_another_process_gives_the_same_bits(world, first, tmp_path, more):
    assert as_process(everything, world, tmp_path / "a", False, more)[0] == 0
    if more == "--deterministic":  # these kernels need not be the usual ones, but they repeat themselves
        assert as_process(everything, world, tmp_path / "b", False, more)[0] == 0
        first = tmp_path / "b"
    for name in ("AE", "MARDM"):
        latest = f"Demo/{name}/model/latest.tar"
        assert different_tensors(first / latest, tmp_path / "a" / latest) == []
    assert results(first) == results(tmp_path / "a")


def test_the_flag_asks_for_deterministic_kernels_and_its_absence_does_not(monkeypatch):
    asked = []

    def main(argv):
        start(train_AE.flags().parse_args(argv))
        asked.append((torch.are_deterministic_algorithms_enabled(), os.environ["CUBLAS_WORKSPACE_CONFIG"]))

    for words in (["--deterministic", "--device", "cpu"], ["--device", "cpu"]):
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
        with pytest.raises(SystemExit):
            run(main, words)
    assert asked == [(True, ":4096:8"), (False, "")]
