"""prepare_dataset.py for real on small inputs: what it writes, refuses, and leaves when interrupted."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_motion_process import walk

import prepare_dataset
from motion.skeletons import SMPL22, mirror_joints
from utils.data import dataset_writer as prepare
from utils.data.cal_mean_std import STD_FLOOR, mean_std
from utils.data.caption_text import tag
from utils.data.clips import load_clips
from utils.data.dataset_writer import with_twins
from utils.data.unseen_pairs import hold_out_pairs
from utils.datasets import Normalizer, find_dataset
from utils.errors import BadInput
from utils.evaluation_report import read_labels
from utils.motion_process import feature_groups, joints_to_features

FRAMES = {"a": 60, "b": 25, "c": 24, "d": 450, "e": 80, "f": 90}  # 24 frames give 23 rows: too short


def write_packed(folder, frames=FRAMES, unit=0.0002):
    """A packed set of random walks; the last two clips are val and test."""
    folder.mkdir(exist_ok=True)
    walks = [walk(SMPL22, seed, n) for seed, n in enumerate(frames.values())]
    clips = [np.round(joints / unit).astype(np.int16) for joints in walks]
    np.savez(
        folder / "motions.npz",
        joints=np.concatenate(clips),
        unit_m=unit,
        fps=20.0,
        offsets=np.cumsum([0, *frames.values()]),
        names=np.array(list(frames)),
        joint_names=np.array(SMPL22.joints),
    )
    splits = ["train"] * (len(frames) - 2) + ["val", "test"]
    labels = [f"{name},walk,calm,{split},x" for name, split in zip(frames, splits)]
    (folder / "labels.csv").write_text("\n".join(["name,content,style,split,note", *labels]))
    tokens = ["a/DET", "person/NOUN", "walk/VERB"]
    lines = [{"name": name, "captions": ["a person walks"], "tokens": [tokens]} for name in frames]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return clips


def prepare_joints(tmp_path, *flags):
    line = f"joints --input {tmp_path}/packed --name Own --dataset_dir {tmp_path}/sets"
    return prepare_dataset.main([*line.split(), *flags])


@pytest.fixture
def packed(tmp_path):
    return write_packed(tmp_path / "packed")


def test_packed_joints_become_a_set_that_loads(tmp_path, packed, capsys):
    prepare_joints(tmp_path)
    spec, root = find_dataset("Own", tmp_path / "sets")
    assert (spec.skeleton, spec.fps, spec.min_frames, spec.cfg) == (SMPL22, 20.0, 24, 2.5)
    assert spec.facing == "one_sign"
    clips = {clip.name: clip for split in ("train", "val", "test") for clip in load_clips(spec, root, split)}
    assert list(clips) == ["a", "b", "d_p1", "d_p2", "d_p3", "e", "f"]
    assert clips["a"].captions[0].text == "a person walks"
    assert clips["a"].captions[0].tokens == ("a/DET", "person/NOUN", "walk/VERB")
    expected = joints_to_features(packed[0] * 0.0002, SMPL22, spec.facing)
    assert np.array_equal(clips["a"].motion, expected[:, :67])
    assert np.load(root / "new_joint_vecs/a.npy").shape == (59, 263)
    assert sum(len(clips[f"d_p{k}"].motion) for k in (1, 2, 3)) == 449
    text = capsys.readouterr().out
    assert "shorter than 24 feature rows: c" in text and "cut 1 clips" in text
    assert (root / "labels.csv").read_text().splitlines()[:2] == [
        "name,content,style,mirror_of",
        "a,walk,calm,",
    ]


def test_twins_of_the_training_clips_and_another_split_column(tmp_path, packed):
    """And without a content column, label metrics are left out: all clips do not count as one label."""
    rows = ["name,split,mine", "a,test,train", "b,train,val", "d,train,train", "e,train,test", "f,train,drop"]
    (tmp_path / "packed/labels.csv").write_text("\n".join([*rows, "c,train,drop"]))
    captions = (tmp_path / "packed/captions.jsonl").read_text().replace("a person", "a left-handed person")
    (tmp_path / "packed/captions.jsonl").write_text(captions)
    prepare_joints(tmp_path, "--mirror", "--split_column", "mine")
    spec, root = find_dataset("Own", tmp_path / "sets")
    names = {split: (root / f"{split}.txt").read_text().split() for split in ("train", "val", "test")}
    parts = [f"{m}d_p{k}" for m in ("", "M") for k in (1, 2, 3)]
    assert names == {"train": ["a", "Ma", *parts], "val": ["b"], "test": ["e"]}
    assert "a right-handed person walks#" in (root / "texts/Md_p2.txt").read_text()
    assert "\nMd_p2,,,d_p2\n" in (root / "labels.csv").read_text()
    assert read_labels(root, load_clips(spec, root, "train")) is None
    twin = joints_to_features(mirror_joints(packed[0] * 0.0002, SMPL22), SMPL22, spec.facing)
    assert np.allclose(np.load(root / "new_joint_vecs/Ma.npy"), twin, atol=1e-6)
    prepare_joints(tmp_path, "--mirror", "all", "--split_column", "mine", "--overwrite")
    assert (root / "val.txt").read_text().split() == ["b", "Mb"]


def test_statistics_are_those_of_the_training_split(tmp_path, packed):
    prepare_joints(tmp_path)
    spec, root = find_dataset("Own", tmp_path / "sets")
    train = np.concatenate([clip.motion for clip in load_clips(spec, root, "train")]).astype(np.float64)
    assert np.allclose(np.load(root / "Mean.npy")[:67], train.mean(axis=0), atol=1e-5)
    normalised = Normalizer.load(root, 67)(torch.from_numpy(train)).numpy()
    groups = feature_groups(22)
    assert normalised[:, groups["yaw"]].std() == pytest.approx(1, rel=1e-3)
    std = np.load(root / "Std.npy")
    for group in groups.values():
        assert len(set(std[group].tolist())) == 1
    assert std[groups["positions"]][0] == pytest.approx(train[:, 4:67].std(axis=0).mean(), rel=1e-4)


def test_mean_std_against_numpy_and_without_movement():
    rng = np.random.default_rng(0)
    motions = [1000 + rng.normal(size=(n, 263)) for n in (5, 70, 11)]
    mean, std = mean_std(motions, 22)
    everything = np.concatenate(motions)
    assert np.allclose(mean, everything.mean(axis=0), rtol=1e-6)
    assert std[1] == pytest.approx(everything.std(axis=0)[1:3].mean(), rel=1e-6)
    assert (mean_std([np.ones((9, 64))], 21)[1] == np.float32(STD_FLOOR)).all()
    with pytest.raises(BadInput, match="empty"):
        mean_std([], 22)


def test_a_set_is_not_replaced_unasked(tmp_path, packed):
    prepare_joints(tmp_path)
    root = tmp_path / "sets" / "Own"
    (root / "mark").touch()
    with pytest.raises(BadInput, match="--overwrite"):
        prepare_joints(tmp_path)
    assert (root / "mark").exists()
    prepare_joints(tmp_path, "--overwrite", "--min_frames", "60")
    assert not (root / "mark").exists() and json.loads((root / "spec.json").read_text())["min_frames"] == 60
    assert [path.name for path in root.parent.iterdir()] == ["Own"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_leaves_the_old_set_and_nothing_else(tmp_path, packed, monkeypatch, error):
    prepare_joints(tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "sets/Own").iterdir()}

    def stop(joints, skeleton, facing, calls=[]):  # noqa: B006
        calls.append(1)
        if len(calls) == 3:
            raise error
        return joints_to_features(joints, skeleton, facing)

    monkeypatch.setattr(prepare, "joints_to_features", stop)
    with pytest.raises(error):
        prepare_joints(tmp_path, "--overwrite")
    assert [path.name for path in (tmp_path / "sets").iterdir()] == ["Own"]
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "sets/Own").iterdir()} == before


def resave(folder, **changes):
    with np.load(folder / "motions.npz") as file:
        arrays = {**file, **changes}
    np.savez(folder / "motions.npz", **{key: value for key, value in arrays.items() if value is not None})


def drop_line(file):
    file.write_text("\n".join(file.read_text().splitlines()[:-1]))


def repeat_line(file):
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines, lines[-1].replace("train", "val").replace("test", "train") + "x"]))


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda f: (f / "motions.npz").unlink(), "motions.npz does not exist: --input must name"),
        (lambda f: (f / "captions.jsonl").unlink(), "captions.jsonl does not exist: .* datasets/README.md"),
        (lambda f: (f / "labels.csv").unlink(), "labels.csv does not exist: .* datasets/README.md"),
        (lambda f: drop_line(f / "captions.jsonl"), "captions.jsonl: 1 clips of motions.npz have no line: f"),
        (lambda f: drop_line(f / "labels.csv"), "labels.csv: 1 clips of motions.npz have no line: f"),
        (lambda f: repeat_line(f / "labels.csv"), "labels.csv: f stands in two rows that differ"),
        (lambda f: resave(f, fps=np.array([20, 30])), "fps and unit_m must be one number each"),
        (lambda f: resave(f, unit_m=1.0), "motions.npz: all bones .* about [0-9]+ m.*: unit_m is 1,"),
        (lambda f: resave(f, joints=np.zeros((729, 22, 3))), "motions.npz: all bones .* about 0 m"),
        (lambda f: (f / "motions.npz").write_bytes(b"PK\x03\x04 not a zip"), "motions.npz is not readable"),
        (lambda f: (f / "motions.npz").write_text("text"), r"packed joints: .* \(object\) data\.$"),
        (lambda f: resave(f, names=np.array(["a", None], dtype=object)), "motions.npz is not readable"),
        (lambda f: resave(f, offsets=None), "motions.npz is not readable"),
        (lambda f: resave(f, offsets=np.array([0, 5])), "offsets do not divide"),
        (lambda f: resave(f, joints=np.zeros((10, 21, 3))), "joints of shape"),
        (lambda f: resave(f, joint_names=np.array(SMPL22.joints[::-1])), "joint_names"),
        (lambda f: (f / "captions.jsonl").write_text('{"name": "a"}'), "captions.jsonl:1"),
        (
            lambda f: (f / "captions.jsonl").write_text('{"name": "a", "captions": 5}'),
            "captions.jsonl:1: needs .*'captions': 5",
        ),
        (lambda f: (f / "captions.jsonl").write_bytes(b"\n\n\xff"), "captions.jsonl:3: .* save it as UTF-8"),
        (lambda f: (f / "captions.jsonl").write_text(""), "captions.jsonl holds no captions"),
        (lambda f: (f / "labels.csv").write_text("name,content\na,b"), "no column split"),
        (lambda f: resave(f, joints=np.full((729, 22, 3), np.nan)), "no clip is left for training"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(tmp_path, packed, spoil, message):
    spoil(tmp_path / "packed")
    with pytest.raises(BadInput, match=message) as caught:
        prepare_joints(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "sets").exists() or not list((tmp_path / "sets").iterdir())


@pytest.mark.parametrize("name, folder", [("t2m", "HumanML3D"), ("kit", "KIT-ML"), ("KIT-ML", "KIT-ML")])
def test_no_set_takes_the_name_of_a_published_one(tmp_path, packed, name, folder):
    with pytest.raises(BadInput, match=f"--name {name} means the published {folder}: pass another --name"):
        prepare_joints(tmp_path, "--name", name, "--overwrite")
    assert not (tmp_path / "sets").exists()


def test_frames_that_come_fast_are_warned_of(tmp_path, packed, capsys):
    for fps, warned in (20.0, False), (120.0, True):
        resave(tmp_path / "packed", fps=fps)
        prepare_joints(tmp_path, "--overwrite")
        out = capsys.readouterr().out
        assert ("warning: fps 120: clips longer than 1.7 s will be cut; models here" in out) is warned


def test_packed_joints_are_a_folder(tmp_path, packed):
    with pytest.raises(BadInput, match="labels.csv/motions.npz does not exist: --input must name a folder"):
        prepare.read_packed(tmp_path / "packed/labels.csv")


def test_bad_clips_are_skipped_and_named(tmp_path, packed, capsys):
    good = prepare.read_packed(tmp_path / "packed")[1]
    nan = good[0].joints.copy()
    nan[3, 4, 1] = np.nan
    bad = [
        replace(good[0], name="../out"),
        replace(good[0], name="歩" * 80),
        replace(good[0], name="n", joints=nan),
        replace(good[0], name="z", joints=0 * good[0].joints),
        replace(good[0], name="s", split="dev"),
        replace(good[0], name="t", captions=("a # b",)),
        replace(good[0], name="p", tokens=(("walk",),)),
        replace(good[0], name="q", captions=(), tokens=()),
        replace(good[0], name="r", captions=("\U0001f600",), tokens=(tag("\U0001f600"),)),
    ]
    prepare.write_set(good + bad, len(good) + len(bad), prepare.SetConfig("Own", tmp_path))
    text = capsys.readouterr().out
    for line in (
        "in front): ../out",
        "shorten it: 歩",
        "positions: n",
        "no person's size: z",
        "test: s",
        "break: t",
        "each caption: p",
        "no caption: q",
        "a caption has no words, emoji alone perhaps: write what the person does: r",
    ):
        assert line in text
    assert len((tmp_path / "Own/train.txt").read_text().split()) == 5
    assert not (tmp_path / "out.npy").exists()


def test_the_demo_set_is_the_same_for_a_seed(tmp_path):
    for name in ("One", "Two"):
        prepare_dataset.main(["demo", "--clips", "40", "--name", name, "--dataset_dir", str(tmp_path)])
    one = tmp_path / "One"
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert len(files) > 80
    for file in files:
        if file.name != "spec.json":
            assert (one / file).read_bytes() == (tmp_path / "Two" / file).read_bytes()
    spec, root = find_dataset("One", tmp_path)
    assert sum(len(load_clips(spec, root, split)) for split in ("train", "val", "test")) >= 40


# a split by pairs


def labelled(content, style, count, split="train"):
    """RawClips of one label; their motion does not matter."""
    name = f"{content}-{style}"
    return [
        prepare.RawClip(f"{name}{i}", np.zeros((30, 22, 3)), ("a",), (("a/DET",),), split, content, style)
        for i in range(count)
    ]


def test_held_out_pairs_are_unseen_as_pairs_and_seen_apart():
    contents = ["walk-left", "walk-right", "run", "bow"]
    clips = [x for c in contents for s in ("angry", "calm", "old") for x in labelled(c, s, 4)]
    clips = [replace(clip, split=split) for clip, split in zip(clips, ["train", "val", "test"] * 16)]
    found = hold_out_pairs(clips, 9, seed=3)
    labels = {
        split: {(clip.content, clip.style) for clip in with_twins(found) if clip.split == split}
        for split in ("train", "val", "test")
    }
    assert not labels["test"] & (labels["train"] | labels["val"])  # mirrored twins included
    for part in (0, 1):
        assert {label[part] for label in labels["test"]} <= {label[part] for label in labels["train"]}
    assert 9 <= sum(clip.split == "test" for clip in found) < 20
    assert [c.split for c in found] == [c.split for c in hold_out_pairs(clips, 9, seed=3)]
    assert [c.split for c in found] != [c.split for c in hold_out_pairs(clips, 9, seed=4)]
    assert [c.name for c in found] == [c.name for c in clips]
    broken = [replace(clip, name=f"broken{i}", split="broken") for i, clip in enumerate(clips)]
    with_broken = hold_out_pairs(clips + broken, 9, seed=3)
    assert [c.split for c in with_broken] == [c.split for c in found] + ["broken"] * len(broken)


def test_what_val_alone_shows_counts_as_unseen():
    """Of run-angry there are val clips only: walk-angry has to stay in training."""
    clips = [x for pair in (("walk", "calm"), ("walk", "angry"), ("run", "calm")) for x in labelled(*pair, 3)]
    for seed in range(9):
        found = hold_out_pairs(clips + labelled("run", "angry", 3, "val"), 3, seed)
        trained = [{getattr(x, part) for x in found if x.split == "train"} for part in ("content", "style")]
        assert trained == [{"walk", "run"}, {"angry", "calm"}], seed


def test_too_few_pairs_are_one_line():
    with pytest.raises(BadInput, match="--unseen_pairs 5: only 0 clips"):
        hold_out_pairs(labelled("run", "calm", 9) + labelled("bow", "old", 9), 5, seed=1)
