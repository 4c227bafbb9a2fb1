"""What goes wrong with HumanML3D and KIT-ML on disk, and which remedy the line names."""

import numpy as np
import pytest

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
