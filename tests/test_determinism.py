"""The same seed gives the same bits: train, sample and evaluate by real commands, in two processes, with
other numbers of workers."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import evaluation_AE
import evaluation_MARDM
import prepare_dataset
import sample
import train_AE
import train_Evaluators
import train_MARDM
from tests.conftest import ROOT
from tests.test_scripts import call, same_tensors
from utils.cli import run, start

STEPS = "--batch_size 8 --epoch 9 --max_iters 50 --warm_up_iter 5 --save_every 20"
GENERATOR = "--ae_name AE --ae_model FSQ_AE_Small"
TRAINED = ("AE/model/latest.tar", "MARDM/model/latest.tar")


def everything(home, out, *more):
    """An evaluator, an autoencoder and a generator of 50 steps each; samples; both evaluations. Into `out`."""
    flags = f"--dataset_name Tiny --dataset_dir {home} --checkpoints_dir {out} --device cpu {' '.join(more)}"
    mardm = f"{flags} {GENERATOR} --model FSQ-MARDM-SiT-XS"
    evaluated = "--repeat_times 2 --batch_size 16"
    prompt = f"--text_prompt walk --motion_length 40 --repeat_times 3 --export npy --output_dir {out}/made"
    for main, line in [
        (train_Evaluators.main, f"{flags} --max_iters 10 --batch_size 32 --dim 16"),
        (train_AE.main, f"{flags} --model FSQ_AE_Small --width 16 {STEPS}"),
        (train_MARDM.main, f"{mardm} {STEPS}"),
        (sample.main, f"{mardm} --time_steps 4 {prompt}"),
        (evaluation_AE.main, f"{flags} --name AE --model FSQ_AE_Small {evaluated}"),
        (evaluation_MARDM.main, f"{mardm} --time_steps 3 {evaluated}"),
    ]:
        assert call(main, line) == 0, line


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A small set and what came of it here."""
    home = tmp_path_factory.mktemp("deterministic")
    assert call(prepare_dataset.main, f"demo --clips 160 --name Tiny --dataset_dir {home}") == 0
    everything(home, home / "first", "--num_workers 0")
    return home


def again(home, name, *more):
    """The same in a process of its own."""
    words = [str(home), str(home / name), *more]
    code = f"from tests.test_determinism import everything; everything(*{words!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return home / name


def figures(folder):
    """Every repeat of both evaluations."""
    files = [folder / "Tiny" / name / "eval/eval.json" for name in ("AE", "MARDM")]
    return [{k: row["repeats"] for k, row in json.loads(f.read_text())["rows"].items()} for f in files]


def motions(folder):
    return [np.load(file) for file in sorted((folder / "made/MARDM_Tiny").glob("*.npy"))]


@pytest.mark.parametrize(
    "more",
    [["--num_workers 2"], pytest.param(["--num_workers 0", "--deterministic"], marks=pytest.mark.slow)],
)
def test_another_process_gives_the_same_bits(home, more):
    first, second = home / "first", again(home, more[-1].strip("-").replace(" ", "_"), *more)
    if "--deterministic" in more:  # these kernels need not be the usual ones, but they repeat themselves
        first, second = second, again(home, "once_more", *more)
    for name in TRAINED:
        assert same_tensors(first / "Tiny" / name, second / "Tiny" / name) == []
    assert figures(first) == figures(second)
    assert len(motions(first)) == 3
    assert all(np.array_equal(a, b) for a, b in zip(motions(first), motions(second), strict=True))


def test_another_seed_gives_others(home):
    flags = f"--dataset_name Tiny --dataset_dir {home} --checkpoints_dir {home}/other --device cpu"
    assert call(train_AE.main, f"{flags} --model FSQ_AE_Small --width 16 {STEPS} --seed 1") == 0
    latest = f"Tiny/{TRAINED[0]}"
    assert len(same_tensors(home / "first" / latest, home / "other" / latest)) > 20


def test_the_flag_asks_for_deterministic_kernels_and_its_absence_does_not(home, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    asked = []

    def main(argv):
        start(train_AE.flags().parse_args(argv))
        asked.append(torch.are_deterministic_algorithms_enabled())

    for words in (["--deterministic", "--device", "cpu"], ["--device", "cpu"]):
        with pytest.raises(SystemExit):
            run(main, words)
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert asked == [True, False]
