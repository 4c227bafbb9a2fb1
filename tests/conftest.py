"""Fixtures that tests share: recorded numbers, real motion, tiny and released weights."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

ROOT = Path(__file__).resolve().parent.parent
torch.set_num_threads(1)  # as in the processes that tests start: bits depend on it


def outside(variable, default):
    """A folder beside the repository, or the one that the environment names; absent: the test is skipped."""
    folder = Path(os.environ.get(variable, ROOT / default))
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent (set {variable})")
    return folder


@pytest.fixture(scope="session")
def goldens():
    """goldens("ae.pt") -> nested dict of tensors recorded from MARDM's implementation."""
    folder = outside("FSQ_MARDM_GOLDENS", "../shared/goldens")
    return lambda name: torch.load(folder / name, weights_only=True)


@pytest.fixture(scope="session")
def data_dir():
    """The folder with real motion capture."""
    return outside("FSQ_MARDM_DATA", "../shared/data")


@pytest.fixture(scope="session")
def real_walk(data_dir):
    """A clip of HumanML3D: joints [T,22,3] in metres."""
    return np.load(data_dir / "humanml3d_samples/new_joints/012314.npy").astype(np.float64)


@pytest.fixture(scope="session")
def varying_walk(real_walk):
    """`real_walk` with bone lengths that vary as a network's do: smooth noise of about 1 cm on each joint."""
    noise = np.random.default_rng(0).normal(0, 0.01, real_walk.shape)
    return real_walk + 2 * gaussian_filter1d(noise, 2, axis=0)


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A home with a tiny data set and a run of every kind (tests/tiny.py). Nobody changes what is in it."""
    from tests.tiny import build

    return build(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def demo_weights(world):
    """The checkpoints of --demo in miniature."""
    return world / "checkpoints"


@pytest.fixture(scope="session")
def pipeline(demo_weights):
    """The weights of --demo in miniature, loaded."""
    from utils.pipeline import load

    return load("Demo/demo_MARDM", demo_weights)


@pytest.fixture(scope="session")
def released():
    """The weights of --demo that the repository holds, loaded."""
    from utils.pipeline import load

    return load("Demo/demo_MARDM", ROOT / "checkpoints")
