"""The cache of a split: read back as packed, made anew after a change, safe for two starts at once."""

import multiprocessing
import os

import numpy as np
import pytest

from utils.data import feature_cache
from utils.data.feature_cache import load_array, read_clips

DIM = 7
IDS = [f"c{i}" for i in range(20)] + ["gone"]


@pytest.fixture
def root(tmp_path):
    """A set of 20 clips of 9 columns, with texts; c3 holds NaN, c4 is too narrow, c5 has no text."""
    (tmp_path / "new_joint_vecs").mkdir()
    (tmp_path / "texts").mkdir()
    rng = np.random.default_rng(0)
    for i in range(20):
        motion = rng.standard_normal((5 + i, 9)).astype(np.float32)
        if i == 3:
            motion[2, 2] = np.nan
        np.save(tmp_path / f"new_joint_vecs/c{i}.npy", motion[:, :4] if i == 4 else motion)
        if i != 5:
            (tmp_path / f"texts/c{i}.txt").write_text(f"clip {i}#clip/NOUN#0.0#0.0\n")
    return tmp_path


def check(root):
    clips = read_clips(root, "train", IDS, DIM)
    assert list(clips) == IDS
    for name, clip in clips.items():
        if clip.problem is None:
            assert np.array_equal(clip.motion, load_array(root / f"new_joint_vecs/{name}.npy")[:, :DIM])
    assert clips["c5"].text is None and clips["c6"].text.startswith("clip 6")
    problems = {name: clip.problem.split()[0] for name, clip in clips.items() if clip.problem}
    assert problems == {"c3": "NaN", "c4": "wrong", "gone": "unreadable"}


def test_the_second_start_reads_the_cache_alone(root, monkeypatch):
    check(root)
    monkeypatch.setattr(feature_cache, "read_motion", lambda *_: pytest.fail("a small file was read"))
    check(root)


def test_a_changed_source_or_another_list_of_clips_makes_the_cache_anew(root):
    check(root)
    np.save(root / "new_joint_vecs/c7.npy", np.ones((30, 9), np.float32))
    motion = read_clips(root, "train", IDS, DIM)["c7"].motion
    assert motion.shape == (30, DIM) and (motion == 1).all()
    (root / "texts/c8.txt").write_text("another text, of another length#a/X#0.0#0.0\n")
    assert read_clips(root, "train", IDS, DIM)["c8"].text.startswith("another")
    assert list(read_clips(root, "train", IDS[:2], DIM)) == IDS[:2]
    assert [file.name for file in (root / "cache").iterdir()] == ["train.npy"]


def spoil(file, how):
    data = bytearray(file.read_bytes())
    if how == "cut short":
        data = data[: len(data) // 2]
    elif how == "a header is damaged":
        data[20] ^= 1
    elif how == "another file":
        data = b"[]"
    file.write_bytes(data)


@pytest.mark.parametrize("how", ["cut short", "a header is damaged", "another file"])
def test_a_damaged_cache_is_made_anew(root, how, capsys):
    check(root)
    spoil(root / "cache/train.npy", how)
    check(root)
    assert "not a readable cache" in capsys.readouterr().out
    check(root)
    assert not capsys.readouterr().out


def start(root, barrier):
    barrier.wait()
    check(root)


def test_two_processes_may_start_at_once(root):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(4)
    starts = [context.Process(target=start, args=(root, barrier)) for _ in range(4)]
    for process in starts:
        process.start()
    for process in starts:
        process.join(30)
    assert [process.exitcode for process in starts] == [0] * 4
    assert [file.name for file in (root / "cache").iterdir()] == ["train.npy"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_no_obstacle(root, capsys):
    root.chmod(0o500)
    try:
        check(root)
        assert "cannot write" in capsys.readouterr().out
    finally:
        root.chmod(0o700)
