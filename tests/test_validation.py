"""`prepare_dataset.py check`: a sound set passes, and each kind of harm is found, named and judged."""

import re
import shutil

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from test_motion_process import walk
from test_prepare_dataset import prepare_joints, write_packed

import prepare_dataset
from motion.skeletons import SMPL22, mirror_joints
from utils.data.dataset_writer import RawClip, SetConfig, write_set
from utils.datasets import DATASETS
from utils.errors import BadInput


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    write_packed(folder / "packed", {f"c{i}": 40 + 3 * i for i in range(30)})
    prepare_joints(folder)
    return folder / "sets"


@pytest.fixture
def own(sound, tmp_path):
    shutil.copytree(sound, tmp_path / "sets")
    return tmp_path / "sets" / "Own"


def check(root, name="Own"):
    prepare_dataset.main(["check", "--dataset_name", name, "--dataset_dir", str(root.parent)])


def test_a_sound_set_passes(own, capsys):
    check(own)
    table = capsys.readouterr().out
    assert "warn" not in table and "FAIL" not in table and "is fit for training" in table
    assert "28 / 1 / 1" in table and "28 of 28; frames min / median / max 39 /" in table


def spoil_motion(own, change):
    file = own / "new_joint_vecs/c3.npy"
    np.save(file, change(np.load(file)))


def with_nan(motion):
    motion[5, 66] = np.nan
    return motion


def append(file, text):
    file.write_text(file.read_text() + text)


def drifted(folder):
    return np.load(folder / "Mean.npy") + 0.5 * np.load(folder / "Std.npy")


@pytest.mark.parametrize(
    "spoil, row",
    [
        (lambda own: spoil_motion(own, with_nan), "warn  NaN or infinite values .* 1: c3"),
        (lambda own: spoil_motion(own, lambda m: m[:, :66]), "warn  fewer than 67 columns .* 1: c3"),
        (lambda own: (own / "new_joint_vecs/c3.npy").unlink(), "warn  no motion file .* 1: c3"),
        (lambda own: (own / "new_joint_vecs/c3.npy").write_bytes(b"x"), "warn  unreadable motion .* 1: c3"),
        (lambda own: (own / "texts/c3.txt").unlink(), "warn  no text file .* 1: c3"),
        (lambda own: (own / "texts/c3.txt").write_text("\n"), "warn  no usable caption .* 1: c3"),
        (
            lambda own: append(own / "texts/c3.txt", "half a line#a/DET#0.0\n"),
            r"malformed text line .* c3.txt:2",
        ),
        (lambda own: append(own / "texts/c3.txt", "late#a/DET#1#99\n"), r"outside its clip .* c3.txt:2"),
        (lambda own: np.save(own / "Mean.npy", drifted(own)), "warn  Mean, Std against"),
        (lambda own: np.save(own / "Std.npy", np.load(own / "Std.npy") * 1.3), "Std differs by 30"),
    ],
)
def test_what_costs_a_clip_or_two_is_a_warning(own, capsys, spoil, row):
    spoil(own)
    check(own)
    assert re.search(row, capsys.readouterr().out)


@pytest.mark.parametrize(
    "spoil, reason",
    [
        (lambda own: append(own / "test.txt", "c3\n"), "ids in more than one split"),
        (lambda own: append(own / "labels.csv", "c29,walk,calm,c3\n"), "twins in another split"),
        (lambda own: (own / "val.txt").write_text(""), "usable clips of val"),
        (lambda own: (own / "Std.npy").unlink(), "Mean.npy, Std.npy"),
        (lambda own: np.save(own / "Std.npy", np.zeros(263)), "Mean.npy, Std.npy"),
        (lambda own: np.save(own / "Std.npy", np.ones(263)), "Mean, Std against"),  # of another set
        (lambda own: np.save(own / "Mean.npy", np.load(own / "Mean.npy") + 9), "Mean, Std against"),
        (lambda own: [file.unlink() for file in (own / "texts").glob("c1*")], "usable clips of train"),
        (lambda own: (own / "train.txt").unlink(), "train.txt does not exist"),
        (lambda own: shutil.rmtree(own), "does not exist"),
    ],
)
def test_what_breaks_training_or_its_meaning_exits_with_a_reason(own, spoil, reason):
    spoil(own)
    with pytest.raises(BadInput, match=reason) as caught:
        check(own)
    assert "\n" not in str(caught.value)


def test_motion_that_stands_in_two_splits(tmp_path, capsys):
    """Sections of one recording, each with its own floor, place and heading: frames 30-69 of 80 in train."""
    clips = [walk(SMPL22, seed, 80) for seed in range(6)]
    clips[4] = clips[0][30:] @ Rotation.from_euler("y", 2.0).as_matrix().T + [3.0, 0.2, 1.0]
    clips[4] = np.concatenate([clips[4], walk(SMPL22, 9, 10)])
    clips[5] = clips[5][:40]
    clips[1] = np.concatenate([clips[1], clips[5][-1:]])  # one frame, the last of both
    raw = [
        RawClip(f"c{i}", joints, ("a person walks",), (("walk/VERB",),), split)
        for i, (joints, split) in enumerate(zip(clips, ["train"] * 4 + ["test"] * 2))
    ]
    write_set(raw, 6, SetConfig("Own", tmp_path))
    with pytest.raises(BadInput, match="usable clips of val"):  # none is there
        prepare_dataset.main(["check", "--dataset_name", "Own", "--dataset_dir", str(tmp_path)])
    table = capsys.readouterr().out
    assert re.search(
        r"warn  motion of test that is also in train +2 of 2 clips, 1 with half .*: c4, c5", table
    )


def test_a_mirrored_clip_whose_original_is_in_train(tmp_path, capsys):
    clips = [walk(SMPL22, seed, 60) for seed in range(4)]
    clips[3] = mirror_joints(clips[0], SMPL22)
    raw = [
        RawClip(f"c{i}", joints, ("a person walks",), (("walk/VERB",),), split)
        for i, (joints, split) in enumerate(zip(clips, ["train", "train", "val", "test"]))
    ]
    write_set(raw, 4, SetConfig("Own", tmp_path))
    check(tmp_path / "Own")
    table = capsys.readouterr().out
    assert re.search(r"ok    mirror image of val in train +none", table)
    assert re.search(r"warn  mirror image of test in train +1: c3", table)


def test_humanml3d_is_held_against_its_published_counts_and_known_files(own, capsys):
    root = own.with_name(DATASETS["t2m"].folder)
    own.rename(root)
    for name in ("007975", "M007975"):
        np.save(root / f"new_joint_vecs/{name}.npy", np.full((50, 263), np.nan))
        shutil.copy(root / "texts/c3.txt", root / f"texts/{name}.txt")
        append(root / "train.txt", f"{name}\n")
    with pytest.raises(
        BadInput, match="usable clips of train"
    ):  # two of thirty are too many; here they are few
        check(root, "t2m")
    table = capsys.readouterr().out
    assert "30 / 1 / 1, published are 23384 / 1460 / 4384" in table
    assert "007975, M007975: skipped" in table and "ok    NaN or infinite values" in table


def test_people_who_lie_in_all_clips_show_a_wrong_axis(own, capsys):
    def lay(rows):
        rows[:, 5 : 4 + 3 * 21 : 3] = rows[:, 3:4]  # every joint as high as the root
        return rows

    for file in (own / "new_joint_vecs").glob("*.npy"):
        np.save(file, lay(np.load(file)))
    with pytest.raises(BadInput, match="Mean, Std against"):  # which are of people who stand
        check(own)
    assert "warn  head above the root" in (out := capsys.readouterr().out) and "--up z" in out


def test_people_who_walk_backwards_show_exchanged_sides(tmp_path, capsys):
    """Motion from a left-handed program: x the other way, names as they were. And one without toes."""
    clips = [walk(SMPL22, seed, 60) for seed in range(3)]
    for name, sign in ("Right", 1), ("Wrong", -1), ("Toeless", 1):
        if name == "Toeless":
            for joints in clips:
                joints[:, list(SMPL22.feet[1::2])] = joints[:, list(SMPL22.feet[::2])]
        raw = [
            RawClip(f"c{i}", joints * [sign, 1, 1], ("a person walks",), (("walk/VERB",),), split)
            for i, (joints, split) in enumerate(zip(clips, ("train", "val", "test")))
        ]
        write_set(raw, 3, SetConfig(name, tmp_path))
        check(tmp_path / name, name)
        out = capsys.readouterr().out
        level, asks = {
            "Right": ("ok  ", "\n"),
            "Wrong": ("warn", ".*are left and right exchanged"),
            "Toeless": ("warn", ".*no length"),
        }[name]
        assert re.search(rf"{level}  toes ahead of the ankles +-?0\.\d\d m{asks}", out)


@pytest.mark.parametrize("metres", [0.01, 0.3048, 1000.0], ids=["cm", "feet", "metres for mm"])
def test_the_height_of_the_root_shows_a_wrong_unit(own, capsys, metres):
    """A set of adults, whose pelvis is 0.9 m high, in a unit of so many metres."""
    files = sorted((own / "new_joint_vecs").glob("*.npy"))
    height = np.mean([np.load(file)[:, 3].mean() for file in files])
    for file in files:
        np.save(file, np.load(file) * 0.9 / height / metres)
    with pytest.raises(BadInput, match="not fit for training: all bones together"):
        check(own)
    assert "warn  mean height of the root" in capsys.readouterr().out
