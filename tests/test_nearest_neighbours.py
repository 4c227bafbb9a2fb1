"""Near-copies of training clips: distances in closed form, planted copies, the real command."""

import json
import shutil

import numpy as np
import pytest
import torch

from experiments import nearest_neighbours as memorisation
from experiments.nearest_neighbours import cut_copies, local_joints, near_copies, nearest_clips
from utils.data.clips import Clip
from utils.flags import DEMO


def clips(n, frames=(20, 40), seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(rng.integers(*frames), 5, 3)) for _ in range(n)]


def test_a_distance_is_the_root_mean_square_of_the_joints_in_mm():
    still = [np.zeros((20, 5, 3))]
    moved = [np.zeros((33, 5, 3)) + np.array([0.03, 0.0, 0.04])]  # every joint 5 cm away
    assert nearest_clips(still, moved) == pytest.approx([50.0])
    one_joint = np.zeros((20, 5, 3))
    one_joint[:, 2, 1] = 0.05
    assert nearest_clips(still, [one_joint]) == pytest.approx([50 / np.sqrt(5)])


@pytest.mark.parametrize("cut", [slice(None), slice(4, None), slice(8, -4)])
def test_a_cut_copy_of_a_training_clip_has_distance_zero_and_is_a_near_copy(cut):
    train, test, generated = clips(30), clips(200, seed=1), clips(50, seed=2)
    generated[7] = train[11][cut].copy()
    distance, own = nearest_clips(generated, train), nearest_clips(test, train)
    assert distance[7] == pytest.approx(0, abs=1e-3) and (np.delete(distance, 7) > 100).all()
    found, clean = (near_copies(x, np.percentile(own, 1)) for x in (distance, np.delete(distance, 7)))
    assert found["near_copies"] == clean["near_copies"] + 1 and found["n"] == 50
    assert found["low"] < found["share"] < found["high"]


def test_less_than_four_fifths_of_a_clip_are_no_copy():
    (clip,) = clips(1, frames=(40, 41))
    assert nearest_clips([clip], [clip[:32]])[0] == pytest.approx(0, abs=1e-3)
    assert nearest_clips([clip], [clip[:28], *clips(3, seed=1)])[0] > 100


def test_reconstructed_test_clips_are_one_percent_near_copies():
    sets = dict.fromkeys(memorisation.ROWS, clips(200, seed=1)) | {"copies": clips(30)}
    rows = memorisation.measure(sets, lambda x: nearest_clips(x, clips(30)))
    assert rows["reconstruction"]["share"] == pytest.approx(0.01, abs=0.005)
    assert rows["copies"]["share"] == 1 and rows["copies"]["nearer"] == 1
    assert rows["reconstruction"]["nearer"] == pytest.approx(0.5)


def test_copies_for_the_control_lack_their_first_token():
    of = [Clip(str(i), np.arange(i + 4)[:, None] * np.ones((1, 3))) for i in range(12)]
    cut = cut_copies(of, 9, seed=1)
    assert 0 < len(cut) <= 9 and all(clip.motion[0, 0] == 4 and len(clip.motion) > 4 for clip in cut)


def test_postures_do_not_see_where_one_walks():
    rows = torch.zeros(1, 8, 10)
    rows[..., 4:] = torch.arange(6.0)
    here, there = rows.clone(), rows.clone()
    there[..., :3] = 0.3  # turns and walks
    a, b = (local_joints(x, torch.tensor([8]), 0.5)[0] for x in (here, there))
    assert np.array_equal(a, b) and np.allclose(a[0], np.arange(6).reshape(2, 3) * 0.5)


def test_the_command_measures_a_generator(demo_weights, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(demo_weights, folder)
    where = f"--checkpoints_dir {folder} --dataset_dir {demo_weights.parent}/datasets --device cpu"
    memorisation.main(f"--demo {where} --time_steps 2 --clips 5 --output {tmp_path}/m.png".split())
    found = json.loads((folder / "Demo" / DEMO["name"] / "eval/memorisation.json").read_text())
    for space in found["spaces"].values():
        assert [len(row["distances"]) for row in space.values()] == [5, 5, 5, 5]
        assert min(space["test"]["distances"]) > 0  # no test clip stands in the training split
    assert found["n_train"] > 20 and (tmp_path / "m.png").is_file()
