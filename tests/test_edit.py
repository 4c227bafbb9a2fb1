"""edit.py: which tokens a section means, which sources are read, and that what is kept stays."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

import edit
from models.AE import make_ae
from models.MARDM import MARDM_models
from models.sampling import SamplingConfig
from motion.bvh.rigs import HUMANML3D_BONES
from motion.bvh.writer import write_bvh
from motion.skeletons import SMPL22
from tests.bodies import packed_clips, rest_pose
from tests.test_glb import Reader
from tests.test_MARDM import fill_zero_weights
from tests.tiny import with_demo
from utils.data.bvh_dataset import Reading
from utils.datasets import DATASETS
from utils.errors import BadInput
from utils.generation.edit_source import best_reproduced, bodies, joints_of, read_source
from utils.generation.edits import Plan, _place, parse_sections


@pytest.mark.parametrize(
    ("sections", "drawn"),
    [
        (["0.25,0.5"], range(5, 10)),
        (["20,40"], range(5, 10)),
        (["21,38"], range(5, 10)),  # a token is drawn where any of its frames is
        (["0.0,1.0"], range(20)),
        (["0.5,1"], range(10, 20)),  # 1 is the end, not the second frame
        (["0,.25"], range(5)),
        (["0,4", "76,80"], [0, 19]),
        (["8,12", "0.0,0.1"], [0, 1, 2]),
    ],
)
def test_sections(sections, drawn):
    mask = parse_sections(sections, 80)
    assert mask.nonzero().flatten().tolist() == list(drawn)


@pytest.mark.parametrize(
    "section",
    ["0.6,0.3", "0.5,60", "5,5", "10", "a,b", "1,2,3", "-4,8", "0,90", "nan,1.0", "__import__('os'),1", ""],
)
def test_bad_sections_are_refused_in_one_line(section):
    with pytest.raises(BadInput, match="-msec"):
        parse_sections([section], 80)


@given(st.integers(0, 79), st.integers(1, 80), st.integers(1, 49))
def test_frames_and_their_fractions_mean_the_same(first, length, tokens):
    frames = 4 * tokens
    first, last = first % frames, min(first % frames + length, frames)
    mask = parse_sections([f"{first},{last}"], frames)
    assert mask.sum() == -(-last // 4) - first // 4
    if first % 4 == last % 4 == 0 and frames % 8 == 0:
        assert torch.equal(mask, parse_sections([f"{first / frames!r},{last / frames:.17f}"], frames))


def test_sources(tmp_path):
    spec = DATASETS["t2m"]
    rows = np.random.default_rng(0).standard_normal((42, 263)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    source = read_source(tmp_path / "rows.npy", spec)
    assert source.joints.shape == (42, 22, 3) and source.rows.shape == (44, 67)  # no frame is lost
    assert np.array_equal(source.rows[:42], rows[:, :67]) and np.array_equal(source.rows[43], rows[41, :67])
    for name, array, reason in (
        ("narrow", rows[:, :20], "columns"),
        ("nan", np.full((40, 67), np.nan), "NaN"),
        ("short", rows[:3], ": 3 frames; 4 to 12000 can be edited; for a single pose use --keep_pose"),
        ("pose", rows[:1], ": 1 frame; 4 to 12000 "),
        ("long", np.zeros((20_000, 67)), ": 20000 frames; 4 to 12000 can be edited$"),
    ):
        np.save(tmp_path / f"{name}.npy", array)
        with pytest.raises(BadInput, match=reason):
            read_source(tmp_path / f"{name}.npy", spec)


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(0)
    ae = make_ae("FSQ_AE_Small", width=32).eval()
    return MARDM_models["FSQ-MARDM-SiT-XS"](ae_dim=32, target_dim=5, text_dim=16).eval(), ae


def test_an_edit_sees_what_is_kept(pair):
    """The same section, text and noise, another surrounding: another result."""
    mardm, ae = pair
    fill_zero_weights(mardm)
    with torch.no_grad():
        tokens = ae.tokenize(torch.randn(2, 40, 67))[1]
    sections = torch.zeros(1, 10, dtype=torch.bool)
    sections[0, 4:6] = True
    text, m_lens, sampling = torch.randn(1, 16), torch.tensor([10]), SamplingConfig(snap="off")
    a, b = (mardm.edit(ae, text, m_lens, tokens[i : i + 1], sections, sampling)[0, 4:6] for i in range(2))
    assert not torch.equal(a, b)


def strider(frames, step=0.03):
    """joints [frames,22,3]: HumanML3D's body in its rest pose, striding along +Z."""
    pose = rest_pose(SMPL22, HUMANML3D_BONES)
    joints = np.tile(pose - (0, pose[:, 1].min(), 0), (frames, 1, 1))
    joints[..., 2] += step * np.arange(frames)[:, None]
    return joints


def test_a_bvh_is_a_source_too(tmp_path):
    """Joints -> BVH at another rate -> rows: the motion that went in, on its own bones or HumanML3D's."""
    spec, joints = DATASETS["t2m"], strider(60)  # 1.8 m/s at 60 frames a second
    write_bvh(tmp_path / "a.BVH", joints, 60.0)
    source = read_source(tmp_path / "a.BVH", spec)
    assert source.rows.shape == (20, 67) and np.abs(source.joints - joints[::3]).max() < 0.005
    assert np.abs(joints_of(source.rows, spec) - joints[::3]).max() < 0.005
    large = joints * 1.2
    write_bvh(tmp_path / "large.bvh", large, 20.0)
    rows = bodies(read_source(tmp_path / "large.bvh", spec, Reading(20.0)), spec, "auto")
    for bones, height in (("own", 1.2), ("humanml3d", 1.0)):
        body = joints_of(rows[bones], spec)[0]
        assert np.ptp(body[:, 1]) == pytest.approx(height * np.ptp(joints[0, :, 1]), abs=0.01)
    (tmp_path / "broken.bvh").write_text("HIERARCHY\nROOT x\n")
    for name, of in (("broken.bvh", spec), ("missing.bvh", spec), ("large.bvh", DATASETS["kit"])):
        with pytest.raises(BadInput, match=name):
            read_source(tmp_path / name, of)


def test_other_bones_are_for_22_joints_alone():
    with pytest.raises(BadInput, match="--bones humanml3d is of 22 joints"):
        bodies(None, DATASETS["kit"], "humanml3d")


def test_an_edit_of_every_frame_begins_where_its_source_does_and_stands_on_its_floor(tmp_path):
    """In the air from its first frame on, say: it is not pulled down to the source's pose."""
    spec, world = DATASETS["t2m"], strider(20) @ Rotation.from_rotvec([0, 0.7, 0]).as_matrix().T + [1, 2, 3]
    np.save(tmp_path / "walk.npy", world)
    source = read_source(tmp_path / "walk.npy", spec)
    drawn = source.rows.copy()
    drawn[:, [3, *range(5, 67, 3)]] += 0.4
    drawn[:, 2] *= 2
    plan = Plan(source, torch.ones(5, dtype=torch.bool), (), "own")
    _, joints, lines = _place(drawn, plan, spec)
    assert not any("below the floor" in line for line in lines)
    assert np.abs(joints[..., 1] - world[..., 1] - 0.4).max() < 1e-6
    steps = joints[:, 0] - joints[0, 0]
    assert np.abs(joints[0, 0, [0, 2]] - world[0, 0, [0, 2]]).max() < 1e-6
    assert np.abs(steps - 2 * (world[:, 0] - world[0, 0])).max() < 1e-6
    drawn[8, [3, *range(5, 67, 3)]] -= 0.5
    *_, lines = _place(drawn, plan, spec)
    assert [line for line in lines if "at 0.40 s the body is 10 cm below the floor" in line]


@pytest.mark.parametrize("factor", [100, 1000, 0.01, 0])
def test_joints_in_another_unit_are_no_person(tmp_path, factor):
    np.save(tmp_path / "walk.npy", factor * strider(40))
    with pytest.raises(BadInput, match="walk.npy: all bones .* write joints in metres"):
        read_source(tmp_path / "walk.npy", DATASETS["t2m"])
    write_bvh(tmp_path / "walk.bvh", strider(40), 20.0)
    with pytest.raises(BadInput, match="walk.bvh: all bones .* 4[0-9]+ m.* pass another --unit"):
        read_source(tmp_path / "walk.bvh", DATASETS["t2m"], Reading(20.0, unit="m"))


def test_of_two_bodies_the_one_that_the_autoencoder_knows():
    class KnowsNothingAboveOne(torch.nn.Linear):
        def tokenize(self, motion):
            return None, motion.clamp(max=1)

        def detokenize(self, targets):
            return targets

    autoencoder = SimpleNamespace(ae=KnowsNothingAboveOne(1, 1), normalizer=lambda rows: rows)
    small, large = np.full((8, 67), 0.5), np.full((8, 67), 2.0)
    assert best_reproduced(autoencoder, {"own": large, "humanml3d": small}) == "humanml3d"
    assert best_reproduced(autoencoder, {"own": small, "humanml3d": large}) == "own"


def run_edit(weights, tmp_path, source, *sections):
    """edit.py with the miniature demo weights -> the folder of its files."""
    words = f"--time_steps 2 --source_motion {source} --text_prompt waves --export npy -msec".split()
    return with_demo(edit.main, [*words, *sections], tmp_path / "out", weights)


def real_clips(data_dir, at_least, at_most, count):
    """Clips of Bandai Namco's in the places and headings of their recording."""
    clips = packed_clips(data_dir / "bandai_namco", world=True).values()
    return [clip + [1, 0.3, -2] for clip in clips if at_least <= len(clip) <= at_most][::20][:count]


def test_kept_frames_of_real_clips_stand_where_they_stood(demo_weights, data_dir, tmp_path, capsys):
    """Place, heading, height and number of frames, whatever the autoencoder makes of the motion."""
    clips = real_clips(data_dir, 60, 196, 5)
    assert len(clips) == 5
    for i, clip in enumerate(clips):
        np.save(tmp_path / f"{i}.npy", clip)
        folder = run_edit(demo_weights, tmp_path / str(i), tmp_path / f"{i}.npy", "24,44")
        (file,) = folder.glob("*.npy")
        edited, kept = np.load(file), np.ones(len(clip), dtype=bool)
        kept[24:44] = False
        apart = np.linalg.norm(edited - clip, axis=-1)
        assert edited.shape == clip.shape and apart[kept].max() < 0.001 and apart[~kept].mean() > 0.01
        assert "kept frames: 0.0 mm" in capsys.readouterr().out


def test_a_long_source_is_drawn_in_windows(demo_weights, data_dir, tmp_path):
    (clip,) = real_clips(data_dir, 320, 2000, 1)
    np.save(tmp_path / "long.npy", clip)
    (file,) = run_edit(demo_weights, tmp_path, tmp_path / "long.npy", "10,20", "40,300").glob("*.npy")
    edited, kept = np.load(file), np.ones(len(clip), dtype=bool)
    kept[8:20] = kept[40:300] = False
    apart = np.linalg.norm(edited - clip, axis=-1)
    assert edited.shape == clip.shape and apart[kept].max() < 0.001
    assert all(apart[a:b].mean() > 0.005 for a, b in ((8, 20), (40, 100), (240, 300)))


def test_a_bvh_comes_back_as_a_bvh_at_the_same_place(demo_weights, tmp_path):
    """Also on a body of other size, its hips lower: the model sees HumanML3D's bones, the result has the
    file's.
    """
    turned = Rotation.from_rotvec([0, 1.2, 0]).as_matrix().T
    joints = strider(82, 0.05)
    joints[:, [1, 2], 1] -= 0.05
    joints = joints * 1.1 @ turned + [3, 0.25, -2]
    write_bvh(tmp_path / "a.bvh", joints, 20.0)
    (file,) = run_edit(demo_weights, tmp_path, tmp_path / "a.bvh", "20,40").glob("*.bvh")
    back, source = (Reading(20.0, "cm").joints(path) for path in (file, tmp_path / "a.bvh"))
    kept = np.r_[0:20, 40:82]
    assert back.shape == source.shape and np.abs(back - source)[kept].max() < 0.001
    assert np.linalg.norm(back - source, axis=-1)[20:40].mean() > 0.01


@pytest.mark.parametrize("bones", ["own", "humanml3d"])
def test_every_file_of_an_edit_has_the_sources_bones_and_kept_frames(demo_weights, tmp_path, bones):
    joints = strider(60) * 1.02
    write_bvh(tmp_path / "a.bvh", joints, 20.0)
    source = Reading(20.0).joints(tmp_path / "a.bvh")
    words = f"--time_steps 2 --text_prompt waves --bones {bones} --export npy glb -msec 20,40"
    words = [*words.split(), "--source_motion", f"{tmp_path}/a.bvh"]
    folder = with_demo(edit.main, words, tmp_path / "out", demo_weights)
    files, kept = {path.suffix: path for path in folder.iterdir()}, np.r_[0:20, 40:60]
    glb = Reader(files[".glb"]).pose()[1][:, :, :3, 3]
    shown = np.load(files[".npy"]), Reading(20.0, "cm").joints(files[".bvh"]), glb
    lengths = [np.linalg.norm(x[:, 1:] - x[:, list(SMPL22.parents[1:])], axis=-1).T for x in (source, *shown)]
    for motion, of in zip(shown, lengths[1:]):
        assert np.abs(motion - source)[kept].max() < 0.001
        assert np.abs(of - np.median(lengths[0], axis=1, keepdims=True)).max() < 0.002


def test_flags_of_a_bvh_without_one_are_refused(demo_weights, tmp_path):
    np.save(tmp_path / "walk.npy", strider(40))
    words = f"--text_prompt waves --source_motion {tmp_path}/walk.npy -msec 8,20 --up z"
    with pytest.raises(BadInput, match="are for a .bvh"):
        with_demo(edit.main, words.split(), tmp_path, demo_weights)


def test_in_place_the_source_beside_the_edit_is_held_too(demo_weights, tmp_path, monkeypatch):
    np.save(tmp_path / "walk.npy", strider(40))
    seen = {}
    monkeypatch.setattr(edit, "export_motion", lambda stem, motion, *more: seen.update(edit=motion.joints))
    monkeypatch.setattr(edit, "render_video", lambda path, pair, *more, **titles: seen.update(pair=pair))
    line = f"--time_steps 2 --source_motion {tmp_path}/walk.npy --text_prompt waves -msec 8,20 --export mp4"
    for held in (False, True):
        with_demo(edit.main, [*line.split(), *["--in_place"] * held], tmp_path / f"out{held}", demo_weights)
        for joints in (*seen["pair"], seen["edit"]):
            travelled = np.abs(joints[:, 0, [0, 2]] - joints[0, 0, [0, 2]]).max()
            assert travelled < 1e-6 if held else travelled > 0.2


def test_a_file_read_along_the_wrong_axis_is_said_to_lie(tmp_path, capsys):
    write_bvh(tmp_path / "walk.bvh", strider(40), 20.0)
    for up, said in (("y", False), ("z", True)):
        read_source(tmp_path / "walk.bvh", DATASETS["t2m"], Reading(20.0, up=up))
        assert ("lies in every frame; leave --up out" in capsys.readouterr().out) == said
    lying = strider(40)[..., [0, 2, 1]] * [1, -1, 1]
    np.save(tmp_path / "lying.npy", lying)
    read_source(tmp_path / "lying.npy", DATASETS["t2m"])
    assert "lies in every frame; if it should not" in capsys.readouterr().out
