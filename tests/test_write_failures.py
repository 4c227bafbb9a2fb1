"""Full disks, read-only folders, a killed FFmpeg, a data set that vanishes: one line, exit code 2, nothing
half written, and what was there before stays."""

import errno
import json
import math
import os
import resource
import shutil
import subprocess
import sys
from types import SimpleNamespace

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from tensorboard.summary.writer.record_writer import RecordWriter

from motion.bvh import read_bvh
from motion.files import Unwritten, whole_folder, write_json, write_text
from motion.render.rendering import render_video
from tests.conftest import ROOT
from tests.tiny import PAIR, SCRIPTS, as_process, call, linked, where
from utils.cli import run
from utils.data import bvh_dataset as prepare_bvh
from utils.errors import system_error
from utils.safe_load import load_state
from utils.training import training_loop

FEW = "--batch_size 16 --epoch 2 --max_iters 4 --warm_up_iter 1 --log_every 1 --save_every 2"
WEIGHTS = "--demo --checkpoints_dir {home}/checkpoints --device cpu --time_steps 2 --text_prompt walk"
COMMANDS = {
    "sample": WEIGHTS + " --motion_length 24 --export npy features bvh mp4 html --output_dir {home}/made",
    "edit": WEIGHTS + " --source_motion {walk} -msec 0.2,0.6 --export npy --output_dir {home}/made",
    "train_AE": "{where} --name New --model FSQ_AE_Small --width 8 --window_size 16 " + FEW,
    "train_MARDM": "{where} --name New " + f"{PAIR} {FEW}",
    "train_LengthEstimator": "{where} --checkpoints_dir {home}/new --max_iters 2",
    "train_Evaluators": "{where} --checkpoints_dir {home}/new --max_iters 2 --batch_size 16 --dim 8",
    "evaluation_AE": "{where} --name AE --model FSQ_AE_High --repeat_times 1",
    "evaluation_MARDM": "{where} --name MARDM --repeat_times 1 --time_steps 2 " + PAIR,
    "prepare_dataset": "demo --clips 12 --name Set --dataset_dir {home}",
    "plot_loss": "--log_dir {home}/checkpoints/Demo/AE --metric Val/loss --output {home}/curve.png",
    "release": "--name MARDM --to r --to_ae r_ae --dataset_name Demo --dataset_dir {home}/datasets "
    "--checkpoints_dir {home}/checkpoints",
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
def home(world, tmp_path):
    """A copy of the tiny world to read and write."""
    return linked(world, tmp_path / "home")


def words(command, home):
    walk = next(f for f in sorted(home.glob("datasets/Demo/new_joint_vecs/*.npy")) if len(np.load(f)) <= 196)
    return COMMANDS[command].format(home=home, walk=walk, where=where(home)).split()


def state_of(folder):
    """Which files are there, and whether one was replaced or written to."""
    return {f: (f.stat().st_ino, f.stat().st_mtime_ns) for f in folder.rglob("*") if f.is_file()}


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
def test_whichever_write_meets_a_full_disk(command, world, home, tmp_path, monkeypatch, capsys):
    """The first write of every script, one in its middle and the last is the one that fails."""
    disk = Disk()
    monkeypatch.setattr(os, "fsync", disk)
    assert call(SCRIPTS[command], words(command, home)) == 0, capsys.readouterr().err
    writes = disk.writes
    assert writes > 0
    for full_at in {1, (writes + 1) // 2, writes}:
        home = linked(world, tmp_path / f"full_at_{full_at}")
        before = state_of(home)
        monkeypatch.setattr(os, "fsync", Disk(full_at))
        capsys.readouterr()
        assert call(SCRIPTS[command], words(command, home)) == 2
        line = one_line(capsys)
        assert line.startswith("error: cannot write ") and "No space left on device" in line
        check_whole(home)
        after = state_of(home)
        assert before.keys() <= after.keys()
        assert full_at > 1 or before.items() <= after.items()  # what was there before is untouched


def test_a_full_disk_is_no_reason_to_leave_a_clip_out(tmp_path, monkeypatch):
    """Of a BVH file: what is wrong with it is counted, what is wrong with the disk ends the run."""
    reading = SimpleNamespace(key=lambda path: "key", joints=lambda path: np.zeros((3, 22, 3)))
    assert prepare_bvh._convert_one(("a", "a.bvh", reading, tmp_path))[1].is_file()
    monkeypatch.setattr(os, "fsync", Disk(1))
    with pytest.raises(Unwritten, match="No space left"):
        prepare_bvh._convert_one(("b", "b.bvh", reading, tmp_path))


PLACES = {
    "train_AE": "checkpoints/Demo",
    "sample": "made",
    "prepare_dataset": "Set",
    "plot_loss": "curve.png",
}


@pytest.mark.parametrize("command, place", PLACES.items())
def test_a_folder_that_may_not_be_written(command, place, home, capsys):
    """No right to write; or for root, whom rights do not stop, a file in the folder's place."""
    place = home / place
    if os.geteuid() == 0 or not place.is_dir():
        shutil.rmtree(place, ignore_errors=True)
        place.write_text("a file")
    if command == "plot_loss":
        place.unlink()
        place.mkdir()
    place.chmod(0o500)
    try:
        assert call(SCRIPTS[command], words(command, home)) == 2
        assert str(place) in one_line(capsys)
    finally:
        place.chmod(0o700)


def limited(command, home):
    """A real refusal by the system, in the middle of torch.save."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
    run(SCRIPTS[command], words(command, home))


def test_a_process_at_its_limit_of_file_size(home):
    code, err = as_process(limited, "train_AE", home)
    assert code == 2 and "Traceback" not in err
    *_, last = err.strip().splitlines()
    assert last.startswith(f"error: cannot write {home}") and "File too large" in last
    check_whole(home / "checkpoints")


def into_a_full_disk():
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    run(lambda argv: print("x" * 100), [])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_output_into_a_full_disk():
    code, err = as_process(into_a_full_disk)
    assert code == 2 and err.count("\n") == 1 and err.startswith("error: No space left on device")


def test_output_lacks_letters_of_a_narrow_terminal_and_no_run_ends_for_it():
    code = r"from utils.cli import run; run(lambda argv: print('\u8d70 \udcff'))"
    narrow = dict.fromkeys(("ascii", "ascii:surrogateescape"), b"\\u8d70")  # the second: the locale C
    for encoding, shown in {**narrow, "utf-8:strict": "\u8d70".encode()}.items():
        env = {**os.environ, "PYTHONIOENCODING": encoding}
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True)
        assert (done.returncode, done.stdout.strip()) == (0, shown + b" \\udcff"), done.stderr


def full_under_the_curves(home):
    """TensorBoard writes in a thread of its own, which dies of it, and once more at the end."""
    write, written = RecordWriter.write, []

    def until_full(writer, data):
        written.append(data)
        if len(written) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(writer, data)

    RecordWriter.write = until_full
    run(SCRIPTS["train_AE"], words("train_AE", home))


def test_curves_that_cannot_be_written_stop_the_training(home):
    code, err = as_process(full_under_the_curves, home)
    assert code == 2 and "Traceback" not in err and "Exception" not in err
    last = [bar.splitlines()[-1] for bar in err.split("\r") if bar.strip()][-1]
    assert last.startswith("error: ") and "No space left on device" in last
    check_whole(home)


def test_a_data_set_that_vanishes_under_a_run(home, monkeypatch):
    """Clips are in memory once a run has started."""
    steps, optimizer_step = [], training_loop.optimizer_step

    def vanish(*args):
        steps.append(1)
        if len(steps) == 3:
            shutil.rmtree(home / "datasets/Demo")
        return optimizer_step(*args)

    monkeypatch.setattr(training_loop, "optimizer_step", vanish)
    more = "--num_workers 2 --max_iters 40 --epoch 9"
    assert call(SCRIPTS["train_AE"], [*words("train_AE", home), *more.split()]) == 0
    assert load_state(home / "checkpoints/Demo/New/model/latest.tar")["total_it"] == 40


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


def test_a_cache_that_cannot_be_written_costs_time_only(home, capsys):
    shutil.rmtree(home / "datasets/Demo/cache")
    (home / "datasets/Demo/cache").write_text("a file in the folder's place")
    assert call(SCRIPTS["train_LengthEstimator"], words("train_LengthEstimator", home)) == 0
    out = capsys.readouterr().out
    assert "packing the clips again" in out and "embedding the captions again" in out


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "/x: Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "out of memory: pass a smaller --batch_size"),
        (MemoryError(), "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory"),
        (RuntimeError("CUDA error: out of memory"), "out of memory"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), "out of memory"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error."), "fewer --num_workers"),
        (OSError(errno.EBADF, "Bad file descriptor"), None),
        (RuntimeError("shape mismatch"), None),
        (KeyError("x"), None),
    ],
)
def test_whose_fault_it_is(error, says):
    line = system_error(error)
    assert line is None if says is None else says in line and "\n" not in line


@pytest.mark.parametrize(
    "data",
    [{}, [], 3, "é\n", {"a": []}, [[]], {"ü": {"b": [1, None, True], "c": {}}, "d": [{"e": 2.5}, "\udcff"]}],
)
def test_json_is_what_was_written(tmp_path, data):
    write_json(tmp_path / "a.json", data)
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == data


def test_what_json_does_not_have_is_null(tmp_path):
    write_json(tmp_path / "a.json", {"half": math.nan, "rows": [np.float64("inf"), [1, -math.inf]]})
    found = json.loads((tmp_path / "a.json").read_text("utf-8"))
    assert found == {"half": None, "rows": [None, [1, None]]}


def test_in_json_a_row_of_numbers_is_a_line(tmp_path):
    write_json(tmp_path / "a.json", {"rows": {"x": [1, 2], "y": {"mean": 0.5}}, "n": 2})
    text = (tmp_path / "a.json").read_text("utf-8")
    assert text == '{\n "rows": {\n  "x": [1, 2],\n  "y": {"mean": 0.5}\n },\n "n": 2\n}\n'
