"""Curves: smoothing in closed form, event files read back, and one clear line for each wrong request."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread
from torch.utils.tensorboard import SummaryWriter

import plot_loss
from utils.analysis.event_files import event_folder, read_points, smooth
from utils.cli import run

LOSSES = np.linspace(2, 1, 30)


@pytest.fixture
def log_dir(tmp_path):
    """The folder of a run AE: 30 training losses, two validation losses."""
    return write_run(tmp_path / "checkpoints/t2m/AE/model")


def write_run(folder, losses=LOSSES):
    with SummaryWriter(folder) as writer:
        for step, loss in enumerate(losses):
            writer.add_scalar("Train/loss", loss, 10 * step)
        for step in (0, 200):
            writer.add_scalar("Val/loss", 1.5 - step / 1000, step)
    return folder


def fails(argv, capfd, *words):
    """Exit code 2 and one line that holds the words."""
    with pytest.raises(SystemExit) as stop:
        run(plot_loss.main, [str(arg) for arg in argv])
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert stop.value.code == 2 and error.startswith("error: ")
    assert all(word in error for word in words), error


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30), st.floats(0, 0.999))
def test_smoothing_is_the_weighted_mean_of_the_past(values, weight):
    last = np.arange(len(values))[::-1]
    powers = weight ** last.astype(float)
    assert np.isclose(smooth(values, weight)[-1], (powers * values).sum() / powers.sum(), atol=1e-6)


def test_smoothing_keeps_a_constant_and_steps_over_what_is_not_finite():
    assert np.allclose(smooth(np.full(50, 3.0), 0.9), 3.0)
    assert np.array_equal(smooth([1.0, 2.0, 5.0], 0.0), [1, 2, 5])
    curve = smooth([np.nan, 1.0, np.inf, 1.0], 0.9)
    assert np.isnan(curve[0]) and np.allclose(curve[1:], 1.0)


def test_scalars_come_back_as_they_were_written(log_dir):
    for folder in (log_dir, log_dir.parent):
        scalars = read_points(folder)
        assert sorted(scalars) == ["Train/loss", "Val/loss"]
        steps, values, _ = scalars["Train/loss"]
        assert np.array_equal(steps, 10 * np.arange(30)) and np.allclose(values, LOSSES)


def test_a_restart_in_a_second_file_goes_on_in_the_same_curve(log_dir):
    (first,) = log_dir.iterdir()
    first.rename(log_dir / "events.out.tfevents.1.earlier")  # files sort by their second of birth
    with SummaryWriter(log_dir, filename_suffix=".again", purge_step=200) as writer:
        for step in (200, 210, 300):
            writer.add_scalar("Train/loss", 0.5, step)
    (second,) = log_dir.glob("*.again")
    second.rename(log_dir / "events.out.tfevents.9999999999.again")  # TensorBoard reads files in name order
    steps, values, _ = read_points(log_dir)["Train/loss"]
    assert list(steps) == [*range(0, 200, 10), 200, 210, 300] and list(values[-3:]) == [0.5] * 3


def test_a_run_is_its_model_folder_also_beside_a_one_step_head(log_dir):
    write_run(log_dir.parent / "onestep/model", LOSSES[:3])
    assert event_folder(log_dir.parent) == log_dir


def test_a_picture_of_the_loss_is_written(log_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plot_loss.main(["--log_dir", str(log_dir)])
    smooth_picture = imread("loss_curve.png")
    plot_loss.main(["--log_dir", str(log_dir), "--smooth", "0", "--output", "raw.png"])
    assert smooth_picture.std() > 0.05 and (smooth_picture != imread("raw.png")).any()


def test_all_draws_every_scalar_into_a_folder_named_after_the_run(log_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plot_loss.main(["--log_dir", str(log_dir), "--all"])
    assert sorted(path.name for path in (tmp_path / "AE_curves").iterdir()) == [
        "Train_loss.png",
        "Val_loss.png",
    ]


def test_wrong_requests_get_one_line_with_the_remedy(log_dir, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    other = write_run(tmp_path / "checkpoints/t2m/FSQ/model")
    fails(["--log_dir", tmp_path / "none"], capfd, "none", "no such folder")
    fails(["--log_dir", tmp_path / "empty"], capfd, "empty", "no TensorBoard event files")
    fails(["--log_dir", tmp_path / "checkpoints"], capfd, "2 runs", str(log_dir), str(other))
    fails(["--log_dir", log_dir, "--metric", "Train/los"], capfd, "Train/los:", "Train/loss, Val/loss")
    fails(["--log_dirs", log_dir, other, "--names", "one"], capfd, "1 for 2 runs")
    fails(["--log_dirs", log_dir, other, "--names", "a", "a"], capfd, "twice")
    fails(["--log_dir", log_dir, "--output", "curve.xyz"], capfd, "curve.xyz", ".png")
    fails(["--log_dir", log_dir, "--smooth", "1.5"], capfd, "--smooth", "0.9999")
    fails([], capfd, "--log_dir")
    for flag, value in (("--output", "a.png"), ("--metric", "Val/loss")):
        fails(["--log_dir", log_dir, "--all", flag, value], capfd, f"{flag} has no effect with --all")
    fails(["--log_dir", log_dir, "--output_dir", "a"], capfd, "--output_dir has no effect without --all")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "empty"]
