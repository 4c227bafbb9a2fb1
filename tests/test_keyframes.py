"""Keyframes of an edit: what is read and refused, and that poses are met, by closed form and by edit.py."""

import re
from functools import cache

import numpy as np
import pytest
import torch

import edit
from motion.bvh.writer import write_bvh
from motion.feet import standing
from motion.skeletons import SMPL22
from motion.synthetic.clips import demo_clip
from tests.tiny import with_demo
from utils.data.bvh_dataset import Reading
from utils.datasets import DATASETS
from utils.errors import BadInput
from utils.generation.anchoring import align
from utils.generation.edit_source import joints_of, read_source
from utils.generation.keyframes import CLOSE, HELD, held, hurried, meet, read_keyframe, read_keyframes, still

SPEC = DATASETS["t2m"]
READING = Reading(20.0)


@cache
def clip(label):
    """The first demo clip of an action, joints [T,22,3]."""
    return next(c.joints for c in map(demo_clip, range(0, 1000, 2)) if c.label.startswith(label))


def kick():
    """joints [22,3] with a foot as high as the clip has it."""
    joints = clip("kick")
    return joints[joints[:, 10:12, 1].max(axis=1).argmax()]


@pytest.fixture
def pose(tmp_path):
    np.save(tmp_path / "pose.npy", kick()[None])
    return tmp_path / "pose.npy"


@pytest.fixture
def source(tmp_path):
    np.save(tmp_path / "walk.npy", clip("walk")[:72] + [1, 0.2, -2])
    return tmp_path / "walk.npy"


def off(joints, goal):
    """Metres by which poses [22,3] differ at most, whatever their place and heading."""
    (met,) = align(joints[None], goal[None], np.array([True]))
    return np.linalg.norm(met - goal, axis=-1).max()


def test_a_keyframe_is_a_frame_of_a_file_at_a_time(source):
    file = source.rename(source.with_name("a@b.npy"))
    whole = read_source(file, SPEC)
    one = read_keyframe(f"{file}@1.5:1", SPEC, READING, 50)
    assert one.frame == 30 and one.source.joints.shape == (50, 22, 3) and one.source.rows.shape == (52, 67)
    assert np.array_equal(one.source.joints[30], whole.joints[20])
    assert np.array_equal(one.source.rows[12:49], whole.rows[2:39])
    assert not one.source.rows[:9, :3].any(), "before the file begins the body stands"
    assert read_keyframe(f"{file}@0", SPEC, READING, 50).frame == 0


@pytest.mark.parametrize("tail", ["", "@", "@a", "@1:b", "@nan", "@inf", "@-0.1", "@2", "@1:0.1", "@1:-1"])
def test_bad_keyframes_are_refused_in_one_line(pose, tail):
    with pytest.raises(BadInput, match=r"^--keep_pose [^\n]+\Z"):
        read_keyframe(f"{pose}{tail}", SPEC, READING, 40)


def test_bad_files_and_places_are_refused_in_one_line(pose, tmp_path):
    (tmp_path / "broken.npy").write_text("no array")
    for folder in ("poses", "poses.npy", "poses.bvh"):
        (tmp_path / folder).mkdir()
    (tmp_path / "broken.bvh").write_text("HIERARCHY\nROOT x\n")
    np.save(tmp_path / "kit.npy", np.zeros((8, 21, 3)))
    for name, reason in (
        ("broken.npy", "is no .npy file: write the array with numpy.save"),
        ("broken.bvh", ": no MOTION section"),
        ("kit.npy", r": shape \(8, 21, 3\)"),
        ("missing.npy", r"does not exist\Z"),
        ("missing.bvh", r"does not exist\Z"),
        ("poses", ": a .npy or .bvh file is needed"),
        ("poses.npy", r"cannot be read: Is a directory\Z"),
        ("poses.bvh", r"cannot be read: Is a directory\Z"),
    ):
        with pytest.raises(BadInput, match=rf"^--keep_pose {tmp_path / name} ?{reason}[^\n]*\Z"):
            read_keyframe(f"{tmp_path / name}@1", SPEC, READING, 40)
    with pytest.raises(BadInput, match="21,3"):
        read_keyframe(f"{pose}@1", DATASETS["kit"], Reading(12.5), 40)
    drawn = torch.arange(10) >= 5
    with pytest.raises(BadInput, match="a part that is kept"):
        read_keyframes([f"{pose}@0.5"], SPEC, READING, 40, drawn)
    with pytest.raises(BadInput, match="the frame of"):
        read_keyframes([f"{pose}@1.5", f"{pose}@1.51"], SPEC, READING, 40, drawn)
    ordered = read_keyframes([f"{pose}@1.9", f"{pose}@1.2"], SPEC, READING, 40, drawn)
    assert [keyframe.frame for keyframe in ordered] == [24, 38]


def test_tokens_around_a_keyframe_are_held():
    for frame in range(40):
        tokens = held(frame, 10).nonzero().flatten().numpy() * 4
        assert tokens[0] <= max(frame - HELD, 0) and tokens[-1] + 3 >= min(frame + HELD, 39)
        assert len(tokens) <= 3


@pytest.mark.parametrize("frames", [(40,), (0,), (71,), (30, 36), (5, 40, 65)])
def test_poses_are_met_and_the_rest_stays(pose, source, frames):
    """Exactly, on bones of constant length, nowhere else than near the keyframes."""
    walk = read_source(source, SPEC)
    keyframes = [read_keyframe(f"{pose}@{frame / 20}", SPEC, READING, 72) for frame in frames]
    kept = np.zeros(72, dtype=bool)
    kept[[frames[0] + 4, frames[0] + 5] if frames[0] < 60 else 50] = True
    rows, lines = meet(walk.rows, walk, keyframes, kept, SPEC)
    seen = joints_of(rows, SPEC)
    for frame, line in zip(frames, lines, strict=True):
        assert off(seen[frame], kick()) < 1e-3
        assert seen[frame, 0, 1] == pytest.approx(kick()[0, 1] - kick()[:, 1].min(), abs=1e-3)
        assert re.search(r" 0\.0 cm in the end \(at most 0\.0\)$", line)
    away = np.abs(np.arange(72)[:, None] - frames).min(axis=1) > CLOSE
    assert np.allclose(rows[away | kept], walk.rows[away | kept], atol=1e-9)
    assert np.array_equal(rows[:, :3], walk.rows[:, :3]), "the way over the floor is the motion's"
    bones = np.linalg.norm(seen[:, 1:] - seen[:, list(SMPL22.parents[1:])], axis=-1)
    assert np.ptp(bones, axis=0).max() < 1e-3


def test_a_pose_of_another_body_is_met_on_the_bones_of_the_source(pose, source):
    np.save(pose.with_name("large.npy"), kick()[None] * 1.2)
    walk, none = read_source(source, SPEC), np.zeros(72, dtype=bool)
    files = (pose, pose.with_name("large.npy"))
    keyframes = [read_keyframe(f"{file}@1", SPEC, READING, 72) for file in files]
    one, other = (meet(walk.rows, walk, [keyframe], none, SPEC)[0][20] for keyframe in keyframes)
    assert np.abs(one[3:] - other[3:]).max() < 1e-3


def run_edit(tmp_path, *words):
    """edit.py with the demo weights -> joints."""
    folder = with_demo(edit.main, ["--time_steps", "6", "--export", "npy", *words], tmp_path)
    (file,) = folder.glob("*.npy")
    return np.load(file).astype(np.float64)


def test_edit_py_meets_poses_with_the_demo_weights(pose, tmp_path, capsys):
    """Without a source; one of a .npy with a single frame, one of a .bvh: pose and height."""
    write_bvh(tmp_path / "pose.bvh", np.repeat(kick()[None], 3, axis=0), 20.0)
    words = ["--text_prompt", "a person walks forward", "--motion_length", "80"]
    joints = run_edit(tmp_path, *words, "--keep_pose", f"{tmp_path}/pose.bvh@3.9:0.1", f"{pose}@2")
    assert joints.shape == (80, 22, 3)
    for frame in (40, 78):
        assert off(joints[frame], kick()) < 1e-3
        assert joints[frame, 0, 1] == pytest.approx(kick()[0, 1] - kick()[:, 1].min(), abs=0.01)
    said = re.findall(
        r"joints (\d+\.\d) cm off as drawn .*, (\d+\.\d) cm in the end", capsys.readouterr().out
    )
    assert len(said) == 2 and all(float(drawn) > 0.3 and float(end) == 0 for drawn, end in said)
    steps = np.linalg.norm(np.diff(joints, axis=0), axis=-1)  # a foot that kicks moves at 8 m/s
    assert steps.max() < 0.5, "a jump"


def test_a_pose_of_varying_bones_keeps_its_height(tmp_path):
    """Networks do not keep bones constant: where one shin is short in a frame, the body does not sink."""
    joints = clip("walk")[:20].copy()
    knee, foot = joints[10, 5], joints[10, [8, 11]]
    joints[10, [8, 11]] = foot + 0.3 * (knee - foot[0])
    np.save(tmp_path / "varied.npy", joints)
    keyframe = read_keyframe(f"{tmp_path}/varied.npy@1:0.5", SPEC, READING, 40)
    stood = still(keyframe, SPEC)
    rows, _ = meet(stood.rows, stood, [keyframe], np.zeros(40, dtype=bool), SPEC)
    assert rows[20, 3] == pytest.approx(keyframe.source.rows[20, 3], abs=0.005)


def test_a_pose_near_a_kept_frame_or_another_is_said_to_hurry(pose):
    far, near, next_ = (read_keyframe(f"{pose}@{at}", SPEC, READING, 80) for at in (0.6, 2, 2.2))
    kept = np.zeros(80, dtype=bool)
    assert not list(hurried((far, near), kept, 20.0))
    kept[:8] = True
    said = list(hurried((far, near, next_), kept, 20.0))
    assert ["0.25 s" in said[0], "0.20 s" in said[1], len(said)] == [True, True, 2]


def test_edit_py_puts_a_pose_between_kept_frames(pose, source, tmp_path, capsys):
    """Kept frames stay where they stood; feet that stand do not slide, but for what both sides demand."""
    words = ["--source_motion", str(source), "--text_prompt", "a person walks forward", "-msec", "16,60"]
    joints = run_edit(tmp_path, *words, "--keep_pose", f"{pose}@2")
    before, kept = np.load(source), np.r_[0:16, 60:72]
    assert np.abs(joints - before)[kept].max() < 1e-3 and off(joints[40], kick()) < 1e-3
    floor = joints[:, list(SMPL22.feet), 1].min()
    slid = [
        np.linalg.norm(np.diff(joints[first:last, toe][:, [0, 2]], axis=0), axis=-1).sum()
        for toe, hip in ((10, 1), (11, 2))
        for first, last in standing(joints[:, toe], joints[:, hip], floor, 20)
    ]
    assert sum(slid) < 0.6, slid
    assert "kept frames: 0.0 mm" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--motion_length", "80"], "where there is no source"),
        (["-msec", "0.2,0.4"], "pass --source_motion"),
        (["--source_motion", "walk.npy"], "pass -msec"),
        (
            ["--source_motion", "walk.npy", "--motion_length", "80", "-msec", "0,4"],
            "--motion_length is for motions without --source_motion: leave it out",
        ),
    ],
)
def test_what_is_missing_is_said(demo_weights, tmp_path, words, reason):
    with pytest.raises(BadInput, match=reason):
        with_demo(edit.main, ["--text_prompt", "walk", *words], tmp_path, demo_weights)
