"""The scripts as they are used: real commands on a tiny set, exact resume, one clear line for bad input."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import distill_MARDM
import evaluation_AE
import evaluation_MARDM
import sample
import train_AE
import train_Evaluators
import train_MARDM
from tests.conftest import ROOT
from tests.tiny import PAIR, TRAIN_AE, TRAIN_MARDM, call, different_tensors, linked, where
from utils.data.clips import load_clips
from utils.datasets import find_dataset

GENERATOR = f"--name MARDM {PAIR} --time_steps 4"


def test_checkpoints_open_safely_and_hold_the_promised_keys(world):
    runs = world / "checkpoints/Demo"
    ae, mardm = (torch.load(runs / n / "model/latest.tar", weights_only=True) for n in ("AE", "MARDM"))
    assert ae.keys() >= {"ae", "opt_ae", "scheduler", "ep", "total_it", "config", "format", "mean", "std"}
    assert sum(p.numel() for p in ae["ae"].values()) > 1000
    assert mardm.keys() >= {"mardm", "ema_mardm", "opt_mardm", "scheduler", "ep", "total_it", "target_stats"}
    assert not any("text_encoder" in key or "clip" in key for key in mardm["mardm"])
    assert mardm["target_stats"]["std"].shape == (6,)
    assert (runs / "MARDM/model/net_best_fid.tar").is_file()
    record = json.loads((runs / "AE/opt.json").read_text())
    assert record["flags"]["model"] == "FSQ_AE_High" and record["flags"]["seed"] == 3407


def test_tensorboard_has_the_scalars_of_the_spec(world):
    events = EventAccumulator(str(world / "checkpoints/Demo/AE/model")).Reload()
    names = set(events.Tags()["scalars"])
    assert names >= {"Train/loss", "Train/lr", "Val/loss", "Test/FID", "Train/usage", "Train/perplexity"}


def test_sampling_writes_motions_that_do_not_overwrite_each_other(world, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_bytes(b"a person walks#24\na person walks#24\r\na man / waves\nsomeone jumps#NA\n")
    flags = f"{where(world)} {GENERATOR} --text_path {prompts} --repeat_times 2 --export npy --snap off"
    assert call(sample.main, f"{flags} --output_dir {tmp_path}") == 0
    files = sorted((tmp_path / "MARDM_Demo").glob("*.npy"))
    assert len(files) == 8
    for file in files:
        joints = np.load(file)
        frames = int(re.search(r"_len(\d+)", file.name).group(1))
        assert joints.shape == (frames, 22, 3) and np.isfinite(joints).all()
    (record,) = json.loads((tmp_path / "MARDM_Demo/samples.json").read_text())
    assert sorted(name for made in record["motions"] for name in made["files"]) == [f.name for f in files]
    walks = [np.load(file) for file in files if "walks" in file.name]
    assert len(walks) == 4 and not any(np.array_equal(walks[0], other) for other in walks[1:])


def test_standing_feet_can_be_held(world, tmp_path, capsys):
    flags = f"{where(world)} {GENERATOR} --text_prompt walk --motion_length 40 --export npy"
    for more in (f"--output_dir {tmp_path}/a", f"--output_dir {tmp_path}/b --fix_feet"):
        assert call(sample.main, f"{flags} {more}") == 0
    skate = re.search(r"skate ([\d.]+), after --fix_feet ([\d.]+)", capsys.readouterr().out).groups()
    assert float(skate[1]) <= float(skate[0])
    plain, fixed = (np.load(next((tmp_path / x / "MARDM_Demo").glob("*.npy"))) for x in "ab")
    assert np.array_equal(plain[:, 16:], fixed[:, 16:]) and not np.array_equal(plain[:, 7:12], fixed[:, 7:12])


def test_evaluations_print_log_and_record(world, capsys):
    assert call(evaluation_AE.main, f"{where(world)} --name AE --model FSQ_AE_High --repeat_times 2") == 0
    printed = capsys.readouterr().out
    assert "Evaluating FSQ-AE model: FSQ_AE_High" in printed
    assert "  FSQ levels: [8, 8, 8, 5, 5, 5]" in printed and "  Codebook size: 64000" in printed
    assert re.search(r"Reconstruction FID = [\d.]+ \+- [\d.]+ \(n=\d+", printed.strip().splitlines()[-1])
    folder = world / "checkpoints/Demo/AE/eval"
    assert (folder / "eval.log").read_text().strip() and list(folder.glob("*.json"))
    for split, record in (("test", "eval"), ("val", "eval_val")):
        flags = f"{where(world)} {GENERATOR} --repeat_times 2 --split {split}"
        assert call(evaluation_MARDM.main, flags) == 0
        values = json.loads((world / f"checkpoints/Demo/MARDM/eval/{record}.json").read_text())
        clips = (world / f"datasets/Demo/{split}.txt").read_text().split()
        repeats = values["rows"]["generated"]["repeats"]
        assert [row["n_pred"] for row in repeats] == [len(clips)] * 2 and "fid" in repeats[0]


def test_an_evaluator_that_finds_no_real_motion_leaves_no_share():
    real = {"fid": (0.1, 0), "top1": (0.0, 0.1), "top2": (0.2, 0.1)}
    assert evaluation_MARDM.shares({"top1": (0.1, 0), "top2": (0.1, 0)}, real) == "top2 0.500"
    assert evaluation_MARDM.shares({}, {"fid": (0.1, 0)}) == "not measured"


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_is_exact_also_in_mid_epoch(world, workers, tmp_path):
    """Five steps, then three more, equal eight in one go: bit for bit, for any number of workers."""
    shutil.copytree(world / "checkpoints/Demo/AE", tmp_path / "Demo/AE")
    flags = f"{where(world, tmp_path)} {TRAIN_MARDM} --name MARDM --num_workers {workers}"
    assert call(train_MARDM.main, f"{flags} --max_iters 5") == 0
    assert call(train_MARDM.main, f"{flags} --is_continue") == 0
    latest = "Demo/MARDM/model/latest.tar"
    assert different_tensors(tmp_path / latest, world / "checkpoints" / latest) == []


def test_a_clip_is_masked_anew_in_every_step_and_alike_in_every_validation(world, tmp_path, monkeypatch):
    shutil.copytree(world / "checkpoints/Demo/AE", tmp_path / "Demo/AE")
    keys, masked_loss = {True: [], False: []}, train_MARDM.masked_loss

    def noted(mardm, ae, tokens, own, room):
        keys[mardm.training] += own.tolist()
        return masked_loss(mardm, ae, tokens, own, room)

    monkeypatch.setattr(train_MARDM, "masked_loss", noted)
    assert call(train_MARDM.main, f"{where(world, tmp_path)} {TRAIN_MARDM} --name MARDM") == 0
    assert len(set(keys[True])) == len(keys[True]) > 40  # two epochs
    half = len(keys[False]) // 2
    assert keys[False][:half] == keys[False][half:] and len(set(keys[False])) == half > 0


def test_broken_clips_are_skipped_counted_and_listed(world, tmp_path, capsys):
    shutil.copytree(world / "datasets", tmp_path, dirs_exist_ok=True)
    root = tmp_path / "Demo"
    names = (root / "train.txt").read_text().split()
    nan, narrow, garbage, no_tokens, no_text = (f"{name}" for name in names[:5])
    vectors = root / "new_joint_vecs"
    motion = np.load(vectors / f"{nan}.npy")
    motion[3, 5] = np.nan
    np.save(vectors / f"{nan}.npy", motion)
    np.save(vectors / f"{narrow}.npy", motion[:, :30])
    (vectors / f"{garbage}.npy").write_bytes(b"not an array")
    (root / "texts" / f"{no_tokens}.txt").write_text("no hash signs here\n")
    (root / "texts" / f"{no_text}.txt").unlink()
    spec, folder = find_dataset("Demo", tmp_path)
    assert {clip.name for clip in load_clips(spec, folder, "train")} == set(names[5:])
    printed = capsys.readouterr().out
    reasons = ("NaN", "wrong width", "unreadable", "malformed text line", "no readable text")
    for name, reason in zip(names, reasons):
        assert re.search(f"skipped \\d+, .*{reason}.*{name}", printed), reason


BAD_INPUT = {
    "missing data set": (train_AE.main, "--dataset_name Nowhere", "Nowhere"),
    "wrong autoencoder": (train_AE.main, "--model FSQ_AE_Hugh", "FSQ_AE_High"),
    "levels of a preset": (
        train_AE.main,
        "--model FSQ_AE_High --fsq_levels 4 4 4",
        "--fsq_levels has no effect on FSQ_AE_High",
    ),
    "a grid of too many codes": (
        train_AE.main,
        f"--fsq_levels{' 8' * 10} --name new",
        "--fsq_levels: 1,073,741,824 codes, more than 100,000,000: take fewer or smaller levels",
    ),
    "codes of no code book": (train_AE.main, "--model AE_Model --codebook_size 9", "--codebook_size has no"),
    "run that exists": (train_AE.main, TRAIN_AE, "--is_continue"),
    "evaluator that exists": (train_Evaluators.main, "--epoch 1", "or remove "),
    "steps of another head": (
        train_MARDM.main,
        f"{TRAIN_MARDM} --name new --ddpm_steps 9",
        "--ddpm_steps has no effect on",
    ),
    "layers of no words": (
        train_MARDM.main,
        f"{TRAIN_MARDM} --name new --text_refiner 3",
        "--text_tokens off: leave it out",
    ),
    "replacements of other tokens": (
        train_MARDM.main,
        f"{TRAIN_MARDM} --name new --noise_replacements",
        "--noise_replacements has no effect on FSQ-MARDM-SiT-XS",
    ),
    "steps of another teacher": (
        distill_MARDM.main,
        f"--name MARDM {PAIR} --sampler_steps 7",
        "--sampler_steps has no effect on FSQ-MARDM-SiT-XS, but --teacher_steps",
    ),
    "milestones of a cosine": (train_AE.main, "--milestones 9 --name new", "add that, or leave it out"),
    "decay of a distillation's cosine": (distill_MARDM.main, "--lr_decay 0.5", "--schedule milestones"),
    "milestones of an evaluator's cosine": (train_Evaluators.main, "--milestones 9", "--schedule milestones"),
    "a loss of other text": (train_Evaluators.main, "--loss margin --text minilm", "leave it or --text out"),
    "noise draws of no noise": (
        train_MARDM.main,
        f"{TRAIN_MARDM} --name new --model FSQ-MARDM-Softmax-XS --diffmlps_batch_mul 2",
        "--diffmlps_batch_mul has no effect on",
    ),
    "missing checkpoint": (train_MARDM.main, f"{TRAIN_MARDM} --name new --ae_name nothing", "nothing"),
    "wrong generator": (train_MARDM.main, f"{TRAIN_MARDM} --name new --model MARDM-XXL", "MARDM-SiT-XL"),
    "generator of another family": (
        train_MARDM.main,
        f"{TRAIN_MARDM} --name new --model MARDM-SiT-XS",
        "continuous",
    ),
    "other model in the checkpoint": (
        sample.main,
        "--text_prompt walk --ae_model FSQ_AE_Small --model FSQ-MARDM-SiT-XS",
        "FSQ_AE_High",
    ),
    "missing prompt file": (
        sample.main,
        f"{GENERATOR} --text_path nowhere.txt",
        "error: --text_path nowhere.txt does not exist",
    ),
    "prompts in a folder": (
        sample.main,
        f"{GENERATOR} --text_path {{empty}}",
        "cannot be read: Is a directory",
    ),
    "results below a file": (
        sample.main,
        f"--text_prompt walk --name nobody --output_dir {__file__}/in",
        f"--output_dir: {__file__} is no folder",
    ),
    "waypoints that cannot be read": (
        sample.main,
        "--text_prompt walk --name nobody --waypoints 0,1",
        "write x,z@seconds",
    ),
    "length out of range": (sample.main, f"{GENERATOR} --text_prompt walk --motion_length 4000", "196"),
    "transition of nothing": (sample.main, f"{GENERATOR} --text_prompt walk --transition 8", "--stitch"),
    "candidates for nothing": (sample.main, f"{GENERATOR} --text_prompt walk --candidates 8", "--waypoints"),
    "a way in place": (
        sample.main,
        f"{GENERATOR} --text_prompt walk --waypoints 0,1@2 --in_place",
        "leave one of them out",
    ),
    "not a number": (train_AE.main, "--lr fast", "fast"),
    "no evaluator": (evaluation_AE.main, "--name AE --model FSQ_AE_High --checkpoints_dir {empty}", "AE"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_gives_one_line_and_exit_2(world, tmp_path, capsys, case):
    main, line, mentions = BAD_INPUT[case]
    before = sorted(world.rglob("*"))
    assert call(main, f"{where(world)} {line.replace('{empty}', str(tmp_path))}") == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "\n" not in error and mentions in error
    assert sorted(world.rglob("*")) == before, "something was half-written"


@pytest.mark.parametrize("main, line", [(train_MARDM.main, "--name new"), (train_AE.main, "--is_continue")])
def test_weights_stay_with_their_frames_per_second(world, tmp_path, capsys, main, line):
    home = tmp_path / "home"
    shutil.copytree(world, home)
    file = home / "datasets/Demo/spec.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"fps": 30}))
    flags = TRAIN_MARDM if main is train_MARDM.main else TRAIN_AE
    before = sorted(home.rglob("*"))
    assert call(main, f"{where(home)} {flags} {line}") == 2
    error = capsys.readouterr().err
    said = (
        "fps 20.0, not 30",
        "30 frames per second, the weights were trained on 20",
        "trained with fps 20.0,",
    )
    assert any(line in error for line in said)
    assert sorted(home.rglob("*")) == before


def test_a_generator_is_not_trained_on_a_set_prepared_after_its_autoencoder(world, tmp_path, capsys):
    home = tmp_path / "home"
    shutil.copytree(world, home)
    file = home / "datasets/Demo/Mean.npy"
    np.save(file, np.load(file) + 0.1)
    assert call(train_MARDM.main, f"{where(home)} {TRAIN_MARDM} --name new") == 2
    assert "has other statistics" in capsys.readouterr().err and not (home / "checkpoints/Demo/new").exists()


@pytest.mark.parametrize(
    "main, line",
    [
        (evaluation_MARDM.main, GENERATOR),
        (train_MARDM.main, f"{TRAIN_MARDM} --name new --need_evaluation"),
        (evaluation_AE.main, "--name AE --model FSQ_AE_High --baselines"),
    ],
)
def test_motion_is_not_judged_without_an_evaluator(world, tmp_path, capsys, main, line):
    runs = linked(world / "checkpoints", tmp_path / "runs")
    shutil.rmtree(next(runs.glob("*/text_mot_match")))
    before = sorted(runs.rglob("*"))
    assert call(main, f"{where(world, runs)} {line}") == 2
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert "no evaluator for" in error and "train_Evaluators.py" in error
    assert sorted(runs.rglob("*")) == before


def test_scripts_explain_themselves_and_run_as_processes(capsys):
    for main in (train_AE.main, sample.main):
        assert call(main, "--help") == 0
        shown = capsys.readouterr().out
        assert "--dataset_name" in shown and "[[" not in shown  # a list of defaults as one types it
    command = [sys.executable, "train_AE.py", "--dataset_name", "Nowhere"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
