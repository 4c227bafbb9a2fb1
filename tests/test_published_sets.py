"""What goes wrong with HumanML3D and KIT-ML on disk, and which remedy the line names."""

import numpy as np
import pytest

import evaluation_AE
import evaluation_MARDM
import train_LengthEstimator
from tests.tiny import call, where
from utils.data.clips import read_split
from utils.datasets import Normalizer, find_dataset
from utils.errors import BadInput


def put(folder, width):
    folder.mkdir(parents=True)
    (folder / "train.txt").write_text("000001\n")
    for name in ("Mean.npy", "Std.npy"):
        np.save(folder / name, np.ones(width, np.float32))


@pytest.mark.parametrize(("folder", "name"), [("HumanML3D", "t2m"), ("KIT-ML", "kit")])
def test_a_folders_name_is_answered_with_the_sets_name(tmp_path, folder, name):
    put(tmp_path / folder, 263)
    with pytest.raises(BadInput, match=f"spec.json is missing: pass --dataset_name {name}$"):
        find_dataset(folder, tmp_path)


def test_a_set_that_was_unpacked_one_folder_deeper_is_found(tmp_path):
    put(tmp_path / "HumanML3D" / "HumanML3D", 263)
    with pytest.raises(BadInput, match=f"one folder deeper.*--dataset_dir '{tmp_path / 'HumanML3D'}'"):
        find_dataset("t2m", tmp_path)
    assert find_dataset("t2m", tmp_path / "HumanML3D")[1] == tmp_path / "HumanML3D" / "HumanML3D"


@pytest.mark.parametrize(("dim", "own", "other"), [(67, 263, 251), (64, 251, 263)])
def test_statistics_of_the_other_set_are_refused(tmp_path, dim, own, other):
    for width in (own, dim):
        put(tmp_path / str(width), width)
        assert len(Normalizer.load(tmp_path / str(width), dim).mean) == dim
    put(tmp_path / "other", other)
    with pytest.raises(BadInput, match=f"Mean.npy: {other} columns are another skeleton's.*--dataset_name"):
        Normalizer.load(tmp_path / "other", dim)


def test_a_missing_file_of_a_set_comes_with_where_to_look(tmp_path):
    put(tmp_path / "set", 263)
    (tmp_path / "set" / "Std.npy").unlink()
    with pytest.raises(BadInput, match="Std.npy does not exist: datasets/README.md"):
        Normalizer.load(tmp_path / "set", 67)
    with pytest.raises(BadInput, match="val.txt does not exist: datasets/README.md"):
        read_split(tmp_path / "set", "val")


@pytest.mark.parametrize(
    ("script", "flags", "reason"),
    [
        (evaluation_AE, "--name MARDM", "has no key 'ae': not a checkpoint of an autoencoder"),
        (evaluation_MARDM, "--name AE", "has no key 'ema_mardm': not a checkpoint of a generator"),
        (evaluation_AE, "--name AE --model FSQ_AE_Medium", "leave its flag out, or name another run"),
    ],
)
def test_another_kind_of_run_is_named_by_what_it_holds(world, capsys, script, flags, reason):
    """Not by a flag that was never passed, or that the script does not have."""
    assert call(script.main, f"{flags} {where(world)}") == 2
    assert reason in capsys.readouterr().err


def test_a_published_length_estimator_is_kept_and_no_other_name_is_offered(tmp_path, world, capsys):
    file = tmp_path / "Demo/length_estimator/model/finest.tar"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"published")
    assert call(train_LengthEstimator.main, f"--max_iters 1 {where(world, tmp_path)}") == 2
    assert "finest.tar exists: keep it, or remove" in capsys.readouterr().err
    assert file.read_bytes() == b"published"
