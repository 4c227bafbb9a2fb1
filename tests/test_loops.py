"""Loops: the seam is as smooth as the rest, only frames near it are redrawn; and motion in place."""

import numpy as np
import pytest

import sample
from models.sampling import SamplingConfig
from motion.export import in_place
from tests.test_glb import Reader
from tests.tiny import with_demo
from utils.data.bvh_dataset import Reading
from utils.generation.loops import draw_loop


def local_steps(rows):
    """Mean way of the joints, seen from the root, from each frame to the next; the first follows the last."""
    body = rows[:, 4:].reshape(len(rows), -1, 3)
    return np.linalg.norm(np.roll(body, -1, axis=0) - body, axis=-1).mean(axis=-1)


@pytest.mark.parametrize("length, transition", [(20, 4), (11, 2), (3, 12), (1, 2)])
def test_the_last_frame_flows_into_the_first(released, length, transition):
    text, sampling = released.embed(["a person walks forward"]), SamplingConfig(time_steps=4, cfg=2.5)
    rows, joints = draw_loop(released, text, length, sampling, transition, key=3)
    assert rows.shape == (4 * length, 67) and joints.shape == (4 * length + 1, 22, 3)
    first, again = ((x - x[:, :1] * [1, 0, 1])[0] for x in (joints[:1], joints[-1:]))
    assert np.allclose(first, again, atol=1e-5)  # the last key is the first pose, wherever it stands
    steps = local_steps(rows)
    assert np.isfinite(joints).all() and (length < 4 or steps[-1] <= 1.1 * steps[:-1].max())
    assert abs(rows[:, 0].sum()) < 1e-4  # it faces as at the start
    if length == 20:
        again, _ = draw_loop(released, text, length, sampling, 0, key=3)
        apart = np.abs(again - rows).max(axis=1)
        assert apart[35:45].max() < 0.5 * apart[[0, 1, -2, -1]].max()  # the middle stays


def test_in_place_the_root_stays_and_poses_do_too():
    joints = np.random.default_rng(0).normal(size=(9, 22, 3))
    fixed = in_place(joints)
    assert np.allclose(fixed[:, 0, [0, 2]], joints[0, 0, [0, 2]]) and np.array_equal(fixed[0], joints[0])
    assert np.allclose(fixed[..., 1], joints[..., 1])
    assert np.allclose(fixed - fixed[:, :1], joints - joints[:, :1])


def test_files_that_are_interpolated_close_the_last_step(tmp_path):
    """As players need it: the last step ends at time n / fps, with the first pose."""
    words = (
        "--text_prompt a_person_walks_forward --motion_length 40 --loop --time_steps 3 --export npy bvh glb"
    )
    for place in ([], ["--in_place"]):
        folder = with_demo(sample.main, [*words.split(), *place], tmp_path / f"out{len(place)}")
        files = {path.suffix: path for path in folder.iterdir()}
        joints, bvh = np.load(files[".npy"]), Reading(20.0).joints(files[".bvh"])
        times, pose = Reader(files[".glb"]).pose()
        assert len(joints) == 40 and len(bvh) == len(times) == 41 and times[-1] == 2
        for shown in (bvh, pose[:, :, :3, 3]):
            around = shown[[0, -1]] - shown[[0, -1], :1] * [1, 0, 1]
            assert np.abs(around[1] - around[0]).max() < 0.01
            steps = np.linalg.norm(np.diff(shown[:, 0], axis=0), axis=-1)
            assert steps[-1] <= 1.5 * steps[:-1].max()


def test_sample_py_writes_loops_in_place(tmp_path, capsys):
    prompt = ["--text_prompt", "a person walks forward", "--motion_length", "48", "--loop"]
    more = ["--in_place", "--repeat_times", "2", "--time_steps", "3", "--export", "npy"]
    motions = [np.load(file) for file in with_demo(sample.main, [*prompt, *more], tmp_path).glob("*.npy")]
    assert [len(motion) for motion in motions] == [48, 48]
    for motion in motions:
        assert np.ptp(motion[:, 0, [0, 2]]) < 1e-6
        ways = np.linalg.norm(np.roll(motion, -1, axis=0) - motion, axis=-1).mean(axis=-1)
        assert ways[-1] <= 1.3 * ways[:-1].max()
    folder = with_demo(sample.main, [*prompt, *more, "--fix_feet"], tmp_path / "held")
    held = [np.load(file) for file in folder.glob("*.npy")]
    assert len(held) == 2
    for fixed in held:
        (motion,) = (x for x in motions if np.array_equal(x[0], fixed[0]))
        assert np.array_equal(motion[-1], fixed[-1]) and not np.array_equal(motion, fixed)
    with pytest.raises(SystemExit):
        with_demo(sample.main, [*prompt, "--waypoints", "0,1@2"], tmp_path)
    assert "not allowed with" in capsys.readouterr().err
