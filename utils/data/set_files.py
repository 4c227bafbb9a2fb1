"""Errors for missing or wrong files in a data set's folder: BadInput with the remedy."""

from motion.skeletons import SKELETONS
from utils.errors import BadInput

FULL_WIDTHS = {12 * len(skeleton) - 1 for skeleton in SKELETONS.values()}  # 263 and 251 columns


def expect_file(file):
    """BadInput if a required file of a set is missing."""
    if not file.is_file():
        raise BadInput(f"{file} does not exist: datasets/README.md says which files a set has")


def refuse_nested(root):
    """BadInput for an archive that was unpacked into a folder of its own name."""
    inner = root / root.name
    if not (root / "train.txt").is_file() and (inner / "train.txt").is_file():
        raise BadInput(f"the data set lies one folder deeper, in {inner}: pass --dataset_dir '{root}'")


def refuse_other_skeleton(file, columns, dim):
    """BadInput for HumanML3D's statistics in KIT-ML, or vice versa. dim: of an essential row."""
    if columns in FULL_WIDTHS - {4 * dim - 5}:
        raise BadInput(f"{file}: {columns} columns are another skeleton's: is it another --dataset_name?")


def no_spec(file, published):
    """The BadInput for a missing spec.json. published: {folder: name} of the sets that need none."""
    name = published.get(file.parent.name)
    remedy = f"pass --dataset_name {name}" if name else "prepare the set again with prepare_dataset.py"
    return BadInput(f"{file} is missing: {remedy}")
