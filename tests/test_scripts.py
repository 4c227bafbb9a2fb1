"""The scripts as they are used: real commands on a tiny set, exact resume, one clear line for bad input."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

import evaluation_AE
import evaluation_MARDM
import plot_loss
import prepare_dataset
import sample
import train_AE
import train_Evaluators
import train_LengthEstimator
import train_MARDM
from tests.conftest import ROOT
from utils.cli import run

TINY_AE = (
    "--model FSQ_AE_Small --width 16 --batch_size 16 --epoch 2 --max_iters 6 --warm_up_iter 2 --log_every 2"
)
TINY_MARDM = (
    "--ae_name AE --ae_model FSQ_AE_Small --model FSQ-MARDM-SiT-XS --batch_size 8 --epoch 2 --max_iters 8 "
    "--warm_up_iter 2 --log_every 2"
)
GENERATOR = "--ae_name AE --ae_model FSQ_AE_Small --model FSQ-MARDM-SiT-XS --time_steps 4"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a tiny prepared set; every command of this module works in it."""
    home = tmp_path_factory.mktemp("home")
    call(prepare_dataset.main, f"demo --clips 120 --name Tiny --dataset_dir {home}/datasets")
    return home


def call(main, line):
    """Run a script's main as the shell would. Returns its exit code."""
    with pytest.raises(SystemExit) as exit_:
        run(main, line.split())
    return exit_.value.code


def common(home, checkpoints="checkpoints"):
    return (
        f"--dataset_name Tiny --dataset_dir {home}/datasets --checkpoints_dir {home}/{checkpoints} "
        "--num_workers 0 --device cpu"
    )


@pytest.fixture(scope="module")
def trained(home):
    """An evaluator, an autoencoder, a length estimator and a generator, each trained for a few steps."""
    flags = common(home)
    assert call(train_Evaluators.main, f"{flags} --max_iters 4 --batch_size 32 --dim 16") == 0
    assert call(train_AE.main, f"{flags} {TINY_AE}") == 0
    assert call(train_LengthEstimator.main, f"{flags} --max_iters 4") == 0
    assert call(train_MARDM.main, f"{flags} {TINY_MARDM} --need_evaluation") == 0
    return home


def tensors(path):
    """Every tensor of a checkpoint, by its path in the dict."""
    found = {}

    def walk(tree, prefix):
        if torch.is_tensor(tree):
            found[prefix] = tree
        elif isinstance(tree, dict):
            for key, value in tree.items():
                walk(value, f"{prefix}/{key}")

    walk(torch.load(path, map_location="cpu", weights_only=True), "")
    return found


def same_tensors(a, b):
    a, b = tensors(a), tensors(b)
    assert a.keys() == b.keys() and len(a) > 20
    return [key for key in a if not torch.equal(a[key], b[key])]


def test_checkpoints_open_safely_and_hold_the_promised_keys(trained):
    ae = torch.load(trained / "checkpoints/Tiny/AE/model/latest.tar", map_location="cpu", weights_only=True)
    assert ae.keys() >= {"ae", "opt_ae", "scheduler", "ep", "total_it", "config", "format", "mean", "std"}
    assert sum(p.numel() for p in ae["ae"].values()) > 1000
    path = trained / "checkpoints/Tiny/MARDM/model/latest.tar"
    mardm = torch.load(path, map_location="cpu", weights_only=True)
    assert mardm.keys() >= {"mardm", "ema_mardm", "opt_mardm", "scheduler", "ep", "total_it", "target_stats"}
    assert not any("text_encoder" in key or "clip" in key for key in mardm["mardm"])
    assert mardm["target_stats"]["std"].shape == (5,)
    assert (trained / "checkpoints/Tiny/MARDM/model/net_best_fid.tar").is_file()


def test_tensorboard_has_the_scalars_of_the_spec(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained / "checkpoints/Tiny/AE/model")).Reload()
    names = set(events.Tags()["scalars"])
    assert names >= {"Train/loss", "Train/lr", "Val/loss", "Test/FID", "Train/usage", "Train/perplexity"}


def test_sampling_writes_motions_that_do_not_overwrite_each_other(trained, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text(
        "a person walks#24\na person walks#24\r\na man / waves\nsomeone jumps#NA\n", encoding="utf-8"
    )
    flags = (
        f"{common(trained)} {GENERATOR} --text_path {prompts} --repeat_times 2 --output_dir {tmp_path}/out"
    )
    assert call(sample.main, f"{flags} --export npy") == 0
    files = sorted((tmp_path / "out/MARDM_Tiny").glob("*.npy"))
    assert len(files) == 8
    for file in files:
        joints = np.load(file)
        frames = int(re.search(r"_len(\d+)", file.name).group(1))
        assert joints.shape == (frames, 22, 3) and np.isfinite(joints).all()
    (call_,) = json.loads((tmp_path / "out/MARDM_Tiny/samples.json").read_text())
    assert sorted(name for made in call_["motions"] for name in made["files"]) == [
        file.name for file in files
    ]
    walks = [np.load(file) for file in files if "walks" in file.name]
    assert len(walks) == 4 and not any(np.array_equal(walks[0], other) for other in walks[1:])


def test_standing_feet_can_be_held(trained, tmp_path, capsys):
    flags = f"{common(trained)} {GENERATOR} --text_prompt walk --motion_length 40 --export npy"
    assert call(sample.main, f"{flags} --output_dir {tmp_path}/a") == 0
    assert call(sample.main, f"{flags} --output_dir {tmp_path}/b --fix_feet") == 0
    before, after = map(
        float, re.search(r"skate ([\d.]+), after --fix_feet ([\d.]+)", capsys.readouterr().out).groups()
    )
    assert after <= before
    plain, fixed = (np.load(next((tmp_path / x / "MARDM_Tiny").glob("*.npy"))) for x in "ab")
    assert np.array_equal(plain[:, 16:], fixed[:, 16:]) and not np.array_equal(plain[:, 7:12], fixed[:, 7:12])


def test_a_video_is_written(trained, tmp_path):
    flags = f"{common(trained)} {GENERATOR} --motion_length 16 --output_dir {tmp_path}"
    with pytest.raises(SystemExit):
        run(sample.main, [*flags.split(), "--text_prompt", "a person waves"])
    (video,) = (tmp_path / "MARDM_Tiny").glob("*_len16.mp4")
    assert video.stat().st_size > 5000


def test_evaluations_print_log_and_record(trained, capsys):
    assert call(evaluation_AE.main, f"{common(trained)} --name AE --model FSQ_AE_Small --repeat_times 2") == 0
    printed = capsys.readouterr().out
    assert "Evaluating FSQ-AE model: FSQ_AE_Small" in printed
    assert "  FSQ levels: [5, 5, 5, 5, 5]" in printed and "  Codebook size: 3125" in printed
    assert re.search(r"Reconstruction FID = [\d.]+ \+- [\d.]+ \(n=\d+", printed.strip().splitlines()[-1])
    folder = trained / "checkpoints/Tiny/AE/eval"
    assert (folder / "eval.log").read_text().strip() and list(folder.glob("*.json"))
    flags = f"{common(trained)} --name MARDM {GENERATOR} --repeat_times 2"
    assert call(evaluation_MARDM.main, flags) == 0
    (record,) = (trained / "checkpoints/Tiny/MARDM/eval").glob("*.json")
    assert "fid" in record.read_text()
    assert call(evaluation_MARDM.main, f"{flags} --split val") == 0
    on_val = json.loads(record.with_name("eval_val.json").read_text())["rows"]["generated"]["repeats"][0]
    n_val = len((trained / "datasets/Tiny/val.txt").read_text().split())
    assert (
        on_val["n_pred"]
        == n_val
        != json.loads(record.read_text())["rows"]["generated"]["repeats"][0]["n_pred"]
    )


def test_plots(trained, tmp_path):
    flags = f"--log_dir {trained}/checkpoints/Tiny/AE/model --output {tmp_path}/loss.png"
    assert call(plot_loss.main, flags) == 0
    assert (tmp_path / "loss.png").stat().st_size > 5000


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_is_exact_also_in_mid_epoch(trained, workers, tmp_path):
    """Five steps, then three more, equal eight in one go: bit for bit, for any number of workers."""
    shutil.copytree(trained / "checkpoints/Tiny/AE", tmp_path / "checkpoints/Tiny/AE")
    flags = common(trained).replace(f"{trained}/checkpoints", f"{tmp_path}/checkpoints")
    flags = flags.replace("--num_workers 0", f"--num_workers {workers}")
    line = f"{flags} {TINY_MARDM}"
    assert call(train_MARDM.main, f"{line} --name whole") == 0
    assert call(train_MARDM.main, f"{line} --name parts --max_iters 5") == 0
    assert call(train_MARDM.main, f"{line} --name parts --is_continue") == 0
    runs = tmp_path / "checkpoints/Tiny"
    assert same_tensors(runs / "whole/model/latest.tar", runs / "parts/model/latest.tar") == []
    assert (
        same_tensors(runs / "whole/model/latest.tar", trained / "checkpoints/Tiny/MARDM/model/latest.tar")
        == []
    )


def spoil_motion(path, value):
    motion = np.load(path)
    np.save(path, value(motion))


@pytest.fixture
def broken(home, tmp_path):
    """A copy of the tiny set to be damaged."""
    shutil.copytree(home / "datasets", tmp_path / "datasets")
    return tmp_path


def test_broken_clips_are_skipped_counted_and_listed(broken, capsys):
    root = broken / "datasets/Tiny"
    names = (root / "train.txt").read_text().split()
    vectors = root / "new_joint_vecs"

    def with_nan(motion):
        motion[3, 5] = np.nan
        return motion

    spoil_motion(vectors / f"{names[0]}.npy", with_nan)
    spoil_motion(vectors / f"{names[1]}.npy", lambda motion: motion[:, :30])
    (vectors / f"{names[2]}.npy").write_bytes(b"not an array")
    (root / "texts" / f"{names[3]}.txt").write_text("no hash signs here\n")
    (root / "texts" / f"{names[4]}.txt").unlink()
    from utils.data.clips import load_clips
    from utils.datasets import find_dataset

    spec, folder = find_dataset("Tiny", broken / "datasets")
    kept = {clip.name for clip in load_clips(spec, folder, "train")}
    assert kept == set(names) - set(names[:5])
    printed = capsys.readouterr().out
    for name, reason in zip(
        names, ("NaN", "wrong width", "unreadable", "malformed text line", "no readable text")
    ):
        assert re.search(f"skipped \\d+, .*{reason}.*{name}", printed), reason


BAD_INPUT = {
    "missing data set": (train_AE.main, "--dataset_name Nowhere", "Nowhere"),
    "wrong autoencoder": (train_AE.main, "--model FSQ_AE_Hugh", "FSQ_AE_High"),
    "run that exists": (train_AE.main, TINY_AE, "--is_continue"),
    "missing checkpoint": (train_MARDM.main, f"{TINY_MARDM} --name new --ae_name nothing", "nothing"),
    "wrong generator": (train_MARDM.main, f"{TINY_MARDM} --name new --model MARDM-XXL", "MARDM-SiT-XL"),
    "generator of another family": (
        train_MARDM.main,
        "--name new --ae_name AE --ae_model FSQ_AE_Small --model MARDM-SiT-XS",
        "continuous",
    ),
    "other model in the checkpoint": (
        sample.main,
        "--text_prompt walk --ae_model FSQ_AE_High --model FSQ-MARDM-SiT-XS",
        "FSQ_AE_Small",
    ),
    "missing prompt file": (sample.main, f"{GENERATOR} --text_path nowhere.txt", "nowhere.txt"),
    "length out of range": (sample.main, f"{GENERATOR} --text_prompt walk --motion_length 4000", "196"),
    "not a number": (train_AE.main, "--lr fast", "fast"),
    "no evaluator": (evaluation_AE.main, "--name AE --model FSQ_AE_Small --checkpoints_dir {empty}", "AE"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_gives_one_line_and_exit_2(trained, tmp_path, capsys, case):
    main, line, mentions = BAD_INPUT[case]
    before = sorted(trained.rglob("*"))
    line = line.replace("{empty}", str(tmp_path))
    assert call(main, f"{common(trained)} {line}") == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "\n" not in error and mentions in error
    assert sorted(trained.rglob("*")) == before, "something was half-written"


@pytest.mark.parametrize("text", ["", "\n \n", "#40\n"])
def test_prompt_files_without_a_prompt_are_refused(trained, tmp_path, capsys, text):
    path = tmp_path / "prompts.txt"
    path.write_text(text)
    assert call(sample.main, f"{common(trained)} {GENERATOR} --text_path {path}") == 2
    assert "prompt" in capsys.readouterr().err


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"garbage" * 100, lambda b: b""])
def test_a_damaged_checkpoint_is_named(trained, tmp_path, capsys, damage):
    shutil.copytree(trained / "checkpoints", tmp_path / "checkpoints")
    path = tmp_path / "checkpoints/Tiny/AE/model"
    for file in (path / "latest.tar", path / "net_best_fid.tar"):
        file.write_bytes(damage(file.read_bytes()))
    flags = common(trained).replace(f"{trained}/checkpoints", f"{tmp_path}/checkpoints")
    assert call(sample.main, f"{flags} {GENERATOR} --text_prompt walk --motion_length 16") == 2
    error = capsys.readouterr().err
    assert "net_best_fid.tar" in error and "\n" not in error.strip()


def test_a_pickle_with_code_is_refused_and_does_not_run(trained, tmp_path, capsys):
    import os
    import pickle

    class Canary:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "canary"),)

    folder = tmp_path / "checkpoints/Tiny/MARDM/model"
    folder.mkdir(parents=True)
    torch.save({"ema_mardm": Canary()}, folder / "latest.tar")
    (folder / "net_best_fid.tar").write_bytes(pickle.dumps({"ema_mardm": Canary()}))
    flags = common(trained).replace(f"{trained}/checkpoints", f"{tmp_path}/checkpoints")
    for which in ("latest", "best"):
        line = f"{flags} {GENERATOR} --checkpoint {which} --text_prompt walk --motion_length 16"
        assert call(sample.main, line) == 2
        assert "safe" in capsys.readouterr().err
    assert not (tmp_path / "canary").exists()


def test_scripts_run_as_processes_and_explain_themselves(home):
    for script in ("train_AE.py", "sample.py"):
        done = subprocess.run([sys.executable, script, "--help"], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0 and "--dataset_name" in done.stdout
    done = subprocess.run(
        [sys.executable, "train_AE.py", "--dataset_name", "Nowhere"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1


def test_the_config_of_a_run_is_recorded(trained):
    record = json.loads((trained / "checkpoints/Tiny/AE/opt.json").read_text())
    assert record["flags"]["model"] == "FSQ_AE_Small" and record["flags"]["seed"] == 3407
