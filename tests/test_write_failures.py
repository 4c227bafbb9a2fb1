"""Full disks, read-only folders, a killed FFmpeg, a data set that vanishes: one line, exit code 2, nothing
half written, and what was there before stays."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import imageio_ffmpeg
import numpy as np
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
from motion.bvh import read_bvh
from motion.files import Unwritten, whole_folder, write_text
from motion.render.rendering import render_video
from scripts import release
from tests.conftest import ROOT
from utils.checkpoints import load_state
from utils.cli import run
from utils.data import bvh_dataset as prepare_bvh
from utils.errors import system_error
from utils.training import training_loop

FEW = "--batch_size 16 --epoch 2 --max_iters 4 --warm_up_iter 1 --log_every 1 --save_every 2"
AE = "--ae_name AE --ae_model FSQ_AE_High"
COMMANDS = {  # writes into {out}; reads the miniature of the demo weights in {home}
    "sample": (
        sample.main,
        "--demo {weights} --motion_length 24 --export npy features bvh mp4 html {into}",
    ),
    "edit": (edit.main, "--demo {weights} --source_motion {walk} -msec 0.2,0.6 --export mp4 {into}"),
    "train_AE": (train_AE.main, "{data} --name New --model FSQ_AE_Small --width 8 --window_size 16 " + FEW),
    "train_MARDM": (train_MARDM.main, "{data} --name New --model FSQ-MARDM-SiT-XS " + f"{AE} {FEW}"),
    "train_LengthEstimator": (train_LengthEstimator.main, "{data} --max_iters 2"),
    "train_Evaluators": (train_Evaluators.main, "{data} --max_iters 2 --batch_size 16 --dim 8"),
    "evaluation_AE": (evaluation_AE.main, "{data} --name AE --model FSQ_AE_High --repeat_times 1"),
    "evaluation_MARDM": (
        evaluation_MARDM.main,
        "{data} --name MARDM --model FSQ-MARDM-SiT-XS --repeat_times 1 --time_steps 2 " + AE,
    ),
    "prepare_dataset": (prepare_dataset.main, "demo --clips 12 --name Set --dataset_dir {out}"),
    "plot_loss": (
        plot_loss.main,
        "--log_dir {home}/checkpoints/Demo/AE --metric Val/loss --output {out}/curve.png",
    ),
    "release": (
        release.main,
        "--name MARDM --to r --to_ae r_ae --dataset_name Demo --checkpoints_dir {out}/checkpoints",
    ),
}
READERS = {  # how a whole file of a kind is told from a half one
    ".tar": load_state,
    ".pt": load_state,
    ".npy": np.load,
    ".json": lambda file: json.loads(file.read_text()),
    ".bvh": read_bvh,
    ".mp4": lambda file: imageio_ffmpeg.count_frames_and_secs(str(file)),
    ".html": lambda file: file.read_text().rindex("</html>"),
}


TIDY = (".part", ".old", ".spare", ".work")


@pytest.fixture
def words(demo_weights, tmp_path):
    """A copy of the miniature demo to read and write, and the words to put into the commands."""
    home, out = demo_weights.parent, tmp_path / "out"
    for folder in ("checkpoints", "datasets"):
        shutil.copytree(home / folder, out / folder)
    motions = (home / "datasets/Demo/new_joint_vecs").glob("*.npy")
    return {
        "home": home,
        "out": out,
        "walk": next(file for file in sorted(motions) if len(np.load(file)) <= 196),
        "weights": f"--checkpoints_dir {demo_weights} --device cpu --time_steps 2 --text_prompt walk",
        "into": f"--output_dir {out}/made",
        "data": f"--dataset_name Demo --dataset_dir {out}/datasets --checkpoints_dir {out}/checkpoints "
        "--num_workers 0 --device cpu",
    }


def call(command, words):
    """Run a script's main as the shell would. Returns its exit code."""
    main, line = COMMANDS[command]
    with pytest.raises(SystemExit) as exit_:
        run(main, line.format(**words).split())
    return exit_.value.code


def digest(folder):
    return {
        file.relative_to(folder): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }


def one_line(capsys):
    """The error on the console: one line, no traceback."""
    lines = [
        line for line in capsys.readouterr().err.replace("\r", "\n").split("\n") if "error" in line.lower()
    ]
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0]


def check_whole(folder):
    """No temporary file, and every file can be read to its end."""
    for file in folder.rglob("*"):
        assert not file.name.startswith(".") and not file.name.endswith(TIDY), file
        if file.is_file() and file.suffix in READERS:
            READERS[file.suffix](file)


class Disk:
    """Stands in for os.fsync: from the `full_at`-th write on, the disk is full."""

    def __init__(self, full_at=None, code=errno.ENOSPC):
        self.writes, self.full_at, self.code, self.sync = 0, full_at, code, os.fsync

    def __call__(self, number):
        self.writes += 1
        if self.full_at is not None and self.writes >= self.full_at:
            raise OSError(self.code, os.strerror(self.code))
        self.sync(number)


@pytest.mark.parametrize("command", COMMANDS)
def test_whichever_write_meets_a_full_disk(command, words, tmp_path, monkeypatch, capsys):
    """Every write of every script, one after another, is the one that fails."""
    if command == "evaluation_MARDM":
        assert call("train_Evaluators", words) == 0  # the evaluator
    disk = Disk()
    monkeypatch.setattr(os, "fsync", disk)
    shutil.copytree(words["out"], tmp_path / "fresh")
    assert call(command, words) == 0, capsys.readouterr().err
    writes = disk.writes
    assert writes > 0
    for full_at in {1, (writes + 1) // 2, writes}:
        shutil.rmtree(words["out"])
        shutil.copytree(tmp_path / "fresh", words["out"])
        before = digest(words["out"])
        monkeypatch.setattr(os, "fsync", Disk(full_at))
        capsys.readouterr()
        assert call(command, words) == 2
        line = one_line(capsys)
        assert line.startswith("error: cannot write ") and "No space left on device" in line
        check_whole(words["out"])
        after = digest(words["out"])
        assert before.keys() <= after.keys()
        assert full_at > 1 or before.items() <= after.items()  # what was there before is untouched


def test_a_full_disk_is_no_reason_to_leave_a_clip_out(tmp_path, monkeypatch):
    """Of a BVH file: what is wrong with it is counted, what is wrong with the disk ends the run."""
    reading = SimpleNamespace(key=lambda path: "key", joints=lambda path: np.zeros((3, 22, 3)))
    assert prepare_bvh._convert_one(("a", "a.bvh", reading, tmp_path))[1].is_file()
    monkeypatch.setattr(os, "fsync", Disk(1))
    with pytest.raises(Unwritten, match="No space left"):
        prepare_bvh._convert_one(("b", "b.bvh", reading, tmp_path))


@pytest.mark.parametrize("command", ["train_AE", "sample", "prepare_dataset", "evaluation_AE", "plot_loss"])
def test_a_folder_that_may_not_be_written(command, words, tmp_path, capsys):
    """No right to write; or for root, whom rights do not stop, a file in the folder's place."""
    out = words["out"]
    place = {"sample": out / "made", "plot_loss": out / "sub", "prepare_dataset": out / "sub"}.get(
        command, out / "checkpoints/Demo"
    )
    if command in ("plot_loss", "prepare_dataset"):
        words["out"] = place
    if os.geteuid() == 0:
        shutil.rmtree(place, ignore_errors=True)
        place.write_text("a file")
        if command == "evaluation_AE":
            pytest.skip("root reads the checkpoint from there")
    else:
        place.mkdir(exist_ok=True)
        place.chmod(0o500)
    try:
        assert call(command, words) == 2
        assert str(place) in one_line(capsys)
    finally:
        place.chmod(0o700)


def child(code, *args, **kwargs):
    return subprocess.run(
        [sys.executable, "-c", code, *args], cwd=ROOT, capture_output=True, text=True, timeout=120, **kwargs
    )


def test_a_process_at_its_limit_of_file_size(words):
    """A real process, a real refusal by the system, in the middle of torch.save."""
    code = "import resource, sys, train_AE; from utils.cli import run\n"
    code += "resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000)); run(train_AE.main)"
    main, line = COMMANDS["train_AE"]
    done = child(code, *line.format(**words).split())
    assert done.returncode == 2 and "Traceback" not in done.stderr
    *_, last = done.stderr.strip().splitlines()
    assert last.startswith(f"error: cannot write {words['out']}") and "File too large" in last
    check_whole(words["out"] / "checkpoints")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_output_into_a_full_disk():
    with open("/dev/full", "w") as full:
        code = "from utils.cli import run; run(lambda argv: print('x' * 100))"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=full, stderr=subprocess.PIPE)
    lines = done.stderr.decode().splitlines()
    assert done.returncode == 2 and len(lines) == 1 and lines[0].startswith("error: No space left on device")


FULL = """
import errno, train_AE
from tensorboard.summary.writer.record_writer import RecordWriter
from utils.cli import run


def until_full(self, data, write=RecordWriter.write, written=[]):
    written.append(data)
    if len(written) > 3:
        raise OSError(errno.ENOSPC, "No space left on device")
    write(self, data)


RecordWriter.write = until_full
run(train_AE.main)
"""


def test_curves_that_cannot_be_written_stop_the_training(words):
    """TensorBoard writes in a thread of its own, which dies of it, and once more at the end."""
    main, line = COMMANDS["train_AE"]
    done = child(FULL, *line.format(**words).split())
    shown = [bar.splitlines()[-1] for bar in done.stderr.split("\r") if bar.strip()]
    assert done.returncode == 2 and "Traceback" not in done.stderr and "Exception" not in done.stderr
    assert shown[-1].startswith("error: ") and "No space left on device" in shown[-1]
    check_whole(words["out"])


def test_a_data_set_that_vanishes_under_a_run(words, monkeypatch):
    """Clips are in memory once a run has started."""
    call("evaluation_AE", words)  # from now on there is a cache
    root, steps, optimizer_step = words["out"] / "datasets/Demo", [], training_loop.optimizer_step

    def vanish(*args):
        steps.append(1)
        if len(steps) == 3:
            shutil.rmtree(root)
        return optimizer_step(*args)

    monkeypatch.setattr(training_loop, "optimizer_step", vanish)
    words["data"] = words["data"].replace("--num_workers 0", "--num_workers 2")
    main, line = COMMANDS["train_AE"]
    line = line.replace("--max_iters 4", "--max_iters 40").replace("--save_every 2", "--save_every 1")
    with pytest.raises(SystemExit) as exit_:
        run(main, line.format(**words).split())
    assert exit_.value.code == 0
    assert load_state(words["out"] / "checkpoints/Demo/New/model/latest.tar")["total_it"] == 40


FFMPEGS = {
    "killed": ("head -c 100000 > /dev/null; kill -9 $$", "ended by signal 9"),
    "ends at once": ("exit 0", "FFmpeg"),
    "fails at the end": (
        "cat > /dev/null; echo 'x: No room' >&2; echo half > \"${@: -1}\"; exit 228",
        "No room",
    ),
    "writes nothing": ("cat > /dev/null", "No such file"),
}


@pytest.mark.parametrize("how", FFMPEGS)
def test_a_video_that_ffmpeg_does_not_finish(how, tmp_path, monkeypatch):
    script, says = FFMPEGS[how]
    (tmp_path / "ffmpeg").write_text(f"#!/bin/bash\n{script}\n")
    (tmp_path / "ffmpeg").chmod(0o755)
    (tmp_path / "a.mp4").write_text("the one before")
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(tmp_path / "ffmpeg"))
    motion = np.random.default_rng(0).standard_normal((12, 22, 3))
    with pytest.raises(Unwritten, match=f"cannot write .*a.mp4: .*{says}"):
        render_video(tmp_path / "a.mp4", motion, panel=128)
    assert (tmp_path / "a.mp4").read_text() == "the one before"
    assert {file.name for file in tmp_path.iterdir()} == {"ffmpeg", "a.mp4"}


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    place = tmp_path / "set"
    with whole_folder(place) as folder:
        write_text(folder / "a.txt", "first")
    with pytest.raises(KeyError), whole_folder(place) as folder:
        write_text(folder / "a.txt", "second")
        raise KeyError
    assert (place / "a.txt").read_text() == "first" and list(tmp_path.iterdir()) == [place]
    place.rename(tmp_path / ".set.old")  # as if killed between the two renames
    with pytest.raises(KeyError), whole_folder(place):
        raise KeyError
    assert (place / "a.txt").read_text() == "first" and list(tmp_path.iterdir()) == [place]
    with whole_folder(place) as folder:
        write_text(folder / "b.txt", "third")
    assert [file.name for file in place.iterdir()] == ["b.txt"] and list(tmp_path.iterdir()) == [place]


def test_a_pack_and_a_cache_that_cannot_be_written_cost_time_only(words, monkeypatch, capsys):
    shutil.rmtree(words["out"] / "datasets/Demo/cache")
    (words["out"] / "datasets/Demo/cache").write_text("a file in the folder's place")
    assert call("train_LengthEstimator", words) == 0
    out = capsys.readouterr().out
    assert "the next start packs the set again" in out and "the next start embeds the captions again" in out


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "/x: Permission denied: choose a place"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device: make room"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "out of memory: pass a smaller --batch_size"),
        (MemoryError(), "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error."), "fewer --num_workers"),
        (OSError(errno.EBADF, "Bad file descriptor"), None),
        (RuntimeError("shape mismatch"), None),
        (KeyError("x"), None),
    ],
)
def test_whose_fault_it_is(error, says):
    line = system_error(error)
    assert line is None if says is None else says in line and "\n" not in line
