"""File names that are safe and unique, and the export of motions in every format."""

import os
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motion.bvh.rigs import changing_bone
from motion.export import FORMATS, NAME_BYTES, Motion, Names, export_motion, file_stem, safe_caption
from motion.skeletons import SMPL22
from tests.bodies import rest_pose

ANY_TEXT = st.text(alphabet=st.characters(), max_size=300)  # surrogates included
HOSTILE = [
    "",
    "   ",
    ".",
    "..",
    "../../etc/passwd",
    "..\\..\\windows",
    "/absolute",
    "a\0b",
    "line one\nline two\r\n",
    "\x1b[31mred",
    ".hidden",
    "CON",
    "trailing dots...",
    '<script>alert("x")</script>',
    "x" * 10_000,
    "走" * 500,
    "🕺🏽💃" * 100,
    "\u202egnp.exe",
    "رجل يمشي إلى الأمام",
    "e\u0301" * 200,
    "\udcff broken bytes",
    "walk:run|jump?*",
]


def joints(frames=4):
    return np.random.default_rng(0).normal(size=(frames, len(SMPL22), 3))


def check_name(name):
    assert len(name.encode()) <= NAME_BYTES
    assert not re.search(r"[/\\\x00-\x1f\x7f\u2028\u202e]", name) and not name.startswith(".")


@settings(max_examples=300, deadline=None)
@given(ANY_TEXT, st.integers(0, 10**6), st.integers(0, 100), st.integers(0, 10**4), st.booleans())
def test_any_caption_becomes_one_short_safe_name(text, sample, repeat, length, plain):
    name = file_stem(text, sample, repeat, length, prefix="" if plain else "caption:") + ".features.npy"
    check_name(name)
    start = "(?!-)" if plain else "caption:"
    assert re.fullmatch(start + r".+_sample\d+_repeat\d+_len\d+\.features\.npy", name)
    if plain:
        assert not set(name) & set('<>:"|?*')


@given(st.text(alphabet="aé走🕺", max_size=80), st.integers(1, 60))
def test_a_cut_name_is_the_beginning_of_the_text_and_as_long_as_fits(text, max_bytes):
    cut = safe_caption("b" + text, max_bytes)
    assert ("b" + text).startswith(cut) and len(cut.encode()) <= max_bytes
    rest = ("b" + text)[len(cut) :]
    assert not rest or len((cut + rest[0]).encode()) > max_bytes


@pytest.mark.parametrize("text, name", [("../../x", "_.._x"), (". .hidden", "hidden"), ("..", "untitled")])
def test_a_name_never_begins_with_a_dot(text, name):
    assert safe_caption(text) == name


def test_a_name_lacks_what_the_file_names_of_the_locale_lack(monkeypatch):
    monkeypatch.setattr("sys.getfilesystemencoding", lambda: "latin-1")
    assert safe_caption("走 é walks 走走") == "é walks"


def test_two_prompts_never_get_the_same_name(tmp_path):
    names = Names(tmp_path)
    twins = [
        "a/b",
        "a\\b",
        "a_b",
        "A_B",
        "a_b\n",
        "x" * 500 + "1",
        "x" * 500 + "2",
        "e\u0301",
        "\u00e9",
        "",
        " ",
    ]
    stems = [names.stem(text, 0, 0, 40).name for text in twins]
    assert len({stem.casefold() for stem in stems}) == len(twins)
    assert all(len((stem + ".mp4").encode()) <= NAME_BYTES for stem in stems)
    assert stems[:2] == ["a_b_sample0_repeat0_len40", "a_b (2)_sample0_repeat0_len40"]


@pytest.mark.parametrize("suffix", [".npy", ".mp4", ".features.npy"])
def test_files_that_are_there_already_keep_their_names(tmp_path, suffix):
    first = Names(tmp_path).stem("walk 1.5 m", 0, 0, 40)
    first.with_name(first.name + suffix).touch()
    second = Names(tmp_path).stem("walk 1.5 m", 0, 0, 40)
    assert second.name == "walk 1.5 m (2)_sample0_repeat0_len40"


def test_two_runs_at_once_share_no_name(tmp_path):
    both = first, second = Names(tmp_path), Names(tmp_path)  # neither finds a file
    stems = [names.stem("walk", 0, 0, 40).name for names in both]
    assert stems == ["walk_sample0_repeat0_len40", "walk (2)_sample0_repeat0_len40"]
    done = first.stem("run", 0, 0, 40)
    done.with_name(f"{done.name}.bvh").touch()
    assert first.stem("jump", 0, 0, 40) and second.stem("run", 0, 0, 40).name.startswith("run (2)")
    del both, first, second
    assert os.listdir(tmp_path) == [f"{done.name}.bvh"]


def test_every_format_arrives_under_its_name(tmp_path):
    motion, rows = joints(), np.ones((3, 263))
    written = export_motion(tmp_path / "a.b", Motion(motion, "walk 1.5 m", 20, SMPL22, rows), tuple(FORMATS))
    assert {name: path.name for name, path in written.items()} == {
        name: "a.b" + suffix for name, (suffix, _) in FORMATS.items()
    }
    assert sorted(path.name for path in written.values()) == sorted(os.listdir(tmp_path))
    assert np.array_equal(np.load(written["npy"]), motion.astype(np.float32))
    assert np.array_equal(np.load(written["features"]), rows.astype(np.float32))
    assert "walk 1.5 m" in written["html"].read_text(encoding="utf-8")
    assert written["mp4"].read_bytes()[4:8] == b"ftyp" and written["gif"].read_bytes()[:4] == b"GIF8"


def test_a_loop_may_have_bones_of_its_own_frames(tmp_path):
    motion = Motion(
        joints(), "walk", 20, SMPL22, own=np.array([True, True, False, True]), closing=joints()[:1]
    )
    for suffix in (".bvh", ".glb"):
        assert motion.save(tmp_path / f"a{suffix}").stat().st_size > 0


@pytest.mark.parametrize("formats", [("npy", "mp4"), ("mp4", "npy")])
def test_a_failing_plot_does_not_lose_the_motion(tmp_path, monkeypatch, formats):
    def fails(*args):
        raise RuntimeError("no video today")

    monkeypatch.setattr("motion.render.rendering.render_video", fails)
    with pytest.raises(RuntimeError, match="no video today"):
        export_motion(tmp_path / "a", Motion(joints(), "walk", 20, SMPL22), formats)
    assert os.listdir(tmp_path) == ["a.npy"] and np.load(tmp_path / "a.npy").shape == (4, 22, 3)


@pytest.mark.parametrize(
    ("motion", "line"),
    [
        (np.full((4, 22, 3), np.nan), "264 NaN or infinite"),
        (joints(0), r"shape \(0, 22, 3\)"),
        (joints()[:, :21], r"smpl22 needs \[frames, 22, 3\]"),
        (np.full((4, 22, 3), "x"), "no array of numbers"),
        (torch.zeros(4, 22, 3, requires_grad=True), r"no array of numbers.*detach"),
    ],
)
def test_what_is_no_motion_is_written_in_no_format(tmp_path, motion, line):
    for name, (suffix, _) in FORMATS.items():
        with pytest.raises(ValueError, match=line):
            Motion(motion, "walk", 20, SMPL22, np.ones((3, 263))).save(tmp_path / f"a{suffix}")
        with pytest.raises(ValueError, match=line):
            export_motion(
                tmp_path / "a", Motion(motion, "walk", 20, SMPL22, np.ones((3, 263))), ("npy", name)
            )
    assert not os.listdir(tmp_path)


def test_a_bone_that_collapses_is_named_with_its_moment():
    still = np.repeat(rest_pose(SMPL22)[None], 30, axis=0)
    assert changing_bone(still, SMPL22, 20.0) == ""
    leg = [SMPL22.joints.index(f"left_{joint}") for joint in ("knee", "ankle", "foot")]
    still[12, leg] -= 0.95 * (still[12, leg[0]] - still[12, SMPL22.parents[leg[0]]])
    said = changing_bone(still, SMPL22, 20.0)
    assert said.startswith("at 0.6 s left hip and left knee are 5 cm apart, else 100;")
