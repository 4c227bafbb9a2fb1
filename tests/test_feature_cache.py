"""The packed cache: what is read later is what was packed, a change is noticed, two starts do not clash."""

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from utils.data.feature_cache import Packed, Store, load_array

DIM = 7


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


IDS = [f"c{i}" for i in range(20)] + ["gone"]


def check(packed, root):
    for name in IDS:
        if name in packed.broken:
            continue
        expected = load_array(root / f"new_joint_vecs/{name}.npy")[:, :DIM]
        assert np.array_equal(packed.motion(name), expected)
    assert packed.texts["c5"] is None and packed.texts["c6"].startswith("clip 6")
    reasons = {name: reason.split()[0] for name, reason in packed.broken.items()}
    assert reasons == {"c3": "NaN", "c4": "wrong", "gone": "unreadable"}


def test_the_second_start_reads_the_pack_alone(root, monkeypatch):
    check(Packed.of(root, IDS, DIM), root)
    monkeypatch.setattr("utils.data.feature_cache.usable", lambda *_: pytest.fail("a small file was read"))
    second = Packed.of(root, IDS, DIM)
    assert isinstance(second.motions, Store)
    monkeypatch.undo()
    check(second, root)


def test_a_changed_source_makes_a_new_pack_and_the_old_one_goes(root):
    Packed.of(root, IDS, DIM)
    np.save(root / "new_joint_vecs/c7.npy", np.ones((30, 9), np.float32))
    again = Packed.of(root, IDS, DIM)
    assert (again.motion("c7") == 1).all() and len(again.motion("c7")) == 30
    (root / "texts/c8.txt").write_text("another text, of another length#a/X#0.0#0.0\n")
    assert Packed.of(root, IDS, DIM).texts["c8"].startswith("another")
    assert len(list((root / "cache").glob("motions-*.npy"))) == 1
    assert len(Packed.of(root, IDS[:5], DIM).places) == 3  # another list of clips is another pack


@pytest.mark.parametrize("file", ["packed.json", "motions-*.npy"])
def test_a_damaged_pack_is_made_anew(root, file):
    Packed.of(root, IDS, DIM)
    (path,) = (root / "cache").glob(file)
    path.write_bytes(path.read_bytes()[:40])
    check(Packed.of(root, IDS, DIM), root)


def start(root, barrier):
    barrier.wait()
    check(Packed.of(root, IDS, DIM), root)


def test_two_processes_may_start_at_once(root):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(4)
    starts = [context.Process(target=start, args=(root, barrier)) for _ in range(4)]
    for process in starts:
        process.start()
    for process in starts:
        process.join(30)
    assert [process.exitcode for process in starts] == [0] * 4
    assert not list(Path(root / "cache").glob("*.part"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_no_obstacle(root, capsys):
    root.chmod(0o500)
    try:
        check(Packed.of(root, IDS, DIM), root)
        assert "cannot write" in capsys.readouterr().out
    finally:
        root.chmod(0o700)
