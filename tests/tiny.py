"""A data set and checkpoints in miniature, made by the real scripts, and how tests run scripts."""

import contextlib
import io
import multiprocessing
import os
import shutil
import tempfile
from pathlib import Path

import pytest
import torch

import edit
import evaluation_AE
import evaluation_MARDM
import plot_loss
import prepare_dataset
import sample
import train_AE
import train_Evaluators
import train_LengthEstimator
import train_MARDM
from scripts import release
from tests.conftest import ROOT
from utils.cli import run
from utils.flags import DEMO

MODULES = (edit, evaluation_AE, evaluation_MARDM, plot_loss, prepare_dataset, release, sample, train_AE)
MODULES += (train_Evaluators, train_LengthEstimator, train_MARDM)
SCRIPTS = {module.__name__.split(".")[-1]: module.main for module in MODULES}

AE_MODEL, MODEL = "FSQ_AE_High", "FSQ-MARDM-SiT-XS"
PAIR = f"--ae_name AE --ae_model {AE_MODEL} --model {MODEL}"
STEPS = "--epoch 2 --warm_up_iter 2 --log_every 2"
TRAIN_AE = f"--model {AE_MODEL} --width 16 --batch_size 16 --max_iters 6 {STEPS}"
TRAIN_MARDM = f"{PAIR} --batch_size 8 --max_iters 8 {STEPS}"

SERVER = multiprocessing.get_context("forkserver")  # processes that need not import everything again
SERVER.set_forkserver_preload(["tests.tiny"])


def call(main, line):
    """Run a script's main as the shell would. Returns its exit code."""
    with pytest.raises(SystemExit) as exit_:
        run(main, line.split() if isinstance(line, str) else line)
    return exit_.value.code


def as_process(target, *args):
    """target(*args) in a process of its own. Returns its exit code, negative for a signal, and its stderr."""
    with tempfile.NamedTemporaryFile("r", errors="replace") as output:
        process = SERVER.Process(target=_redirected, args=(output.name, target, args))
        process.start()
        process.join()
        return process.exitcode, output.read()


def _redirected(path, target, args):
    torch.set_num_threads(1)
    for number, place in ((1, os.devnull), (2, path)):
        os.dup2(os.open(place, os.O_WRONLY), number)
    target(*args)


def where(home, checkpoints=None):
    """The flags of every script that reads the set and the runs below `home`."""
    data = f"--dataset_name Demo --dataset_dir {home}/datasets"
    return f"{data} --checkpoints_dir {checkpoints or f'{home}/checkpoints'} --num_workers 0 --device cpu"


def with_demo(main, words, out, checkpoints=ROOT / "checkpoints"):
    """sample.py or edit.py with the weights of --demo, into `out`. Returns the folder of the run's files."""
    place = ["--checkpoints_dir", str(checkpoints), "--output_dir", str(out), "--device", "cpu"]
    main(["--demo", *place, *words])
    return Path(out) / "demo_MARDM_Demo"


def train(flags, *stages):
    """Each named script once, for a few steps."""
    lines = {
        "train_Evaluators": "--max_iters 2 --batch_size 16 --dim 16 --hidden 16 16 16",
        "train_AE": f"--name AE {TRAIN_AE}",
        "train_LengthEstimator": "--max_iters 2",
        "train_MARDM": f"--name MARDM --need_evaluation {TRAIN_MARDM}",
    }
    for stage in stages or lines:
        assert call(SCRIPTS[stage], f"{flags} {lines[stage]}") == 0, stage


def build(home):
    """datasets/Demo, and in checkpoints/Demo an evaluator, AE, MARDM and both as --demo loads them."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert call(prepare_dataset.main, f"demo --clips 40 --name Demo --dataset_dir {home}/datasets") == 0
        train(where(home))
        runs = f"--dataset_name Demo --dataset_dir {home}/datasets --checkpoints_dir {home}/checkpoints"
        release.main(f"{runs} --name MARDM --to {DEMO['name']} --to_ae demo_AE".split())
    return home


def linked(source, target):
    """A copy of a folder in hard links: scripts replace files, none writes into one. Returns it."""
    shutil.copytree(source, target, copy_function=os.link)
    return Path(target)


def tensors(path):
    """Every tensor of a checkpoint, by its path in the dict."""

    def walk(tree, prefix):
        if torch.is_tensor(tree):
            yield prefix, tree
        elif isinstance(tree, dict):
            for key, value in tree.items():
                yield from walk(value, f"{prefix}/{key}")

    return dict(walk(torch.load(path, map_location="cpu", weights_only=True), ""))


def different_tensors(a, b):
    """Names of the tensors of two checkpoints of one kind that are not equal, bit for bit."""
    a, b = tensors(a), tensors(b)
    assert a.keys() == b.keys() and len(a) > 20
    return [key for key in a if not torch.equal(a[key], b[key])]


def save_clip(folder, words, merges, size, weights=None):
    """A CLIP text tower and its tokenizer, saved as the hub's folders are. Returns the folder.

    words: token -> id, the last two start and end a text; size: layers, heads, inner width; weights: a
    state_dict [random numbers].
    """
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

    layers, heads, inner = size
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=512,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        projection_dim=512,
        max_position_embeddings=77,
        hidden_act="quick_gelu",
        bos_token_id=len(words) - 2,
        eos_token_id=len(words) - 1,
    )
    torch.manual_seed(0)
    with torch.device("cpu" if weights is None else "meta"):
        model = CLIPTextModelWithProjection(config)
    if weights is None:
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    else:
        model.load_state_dict(weights, strict=False, assign=True)
        lacking = {name for name, _ in model.named_parameters()} - weights.keys()
        assert not lacking and not weights.keys() - model.state_dict().keys()
    model.save_pretrained(folder)
    CLIPTokenizer(vocab=words, merges=merges).save_pretrained(folder)
    return folder
