"""Convergence and stability: numbers of curves that are known in closed form, event files written here."""

import json

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

import analyze_training
from utils.analysis import convergence, training_figure
from utils.analysis.output import Figure, group_by

PACE = 0.5  # seconds a step


def write_run(folder, fids, top3s=(), norms=None, scale=1.0, pause=0.0):
    """400 steps, logged every 10; FIDs every 100 steps, warm-up over 100 steps, a pause at step 200."""
    steps = np.arange(10, 401, 10)
    norms = np.where(steps % 20, 1.0, 3.0) if norms is None else norms
    clock = 1e6 + PACE * steps + pause * (steps > 200)
    with SummaryWriter(folder) as writer:
        for step, norm, at in zip(steps.tolist(), norms, clock):
            for tag, value in (("loss", scale / step), ("grad_norm", norm), ("lr", min(step / 100, 1))):
                writer.add_scalar(f"Train/{tag}", value, step, walltime=at)
        for tag, values in (("FID", fids), ("top3", top3s)):
            for i, value in enumerate(values, start=1):
                writer.add_scalar(f"Test/{tag}", value, 100 * i, walltime=1e6 + PACE * 100 * i + 7)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two seeds of A, one run B that is slower and never gets there."""
    home = tmp_path_factory.mktemp("runs")
    write_run(home / "A_1", [8, 4, 2, 1], [0.2, 0.5, 0.8, 0.9], pause=1000)
    write_run(home / "A_2", [8, 1.5, 2, 3], [0.85, 0.5, 0.8, 0.9])
    write_run(home / "B_1", [30, 20, 10, 9], [0.1, 0.1, 0.1, 0.1], scale=1000)
    return home


def analyse(runs, out, *more):
    dirs = [str(runs / name) for name in ("A_1", "A_2", "B_1")]
    flags = ["--output", out / "t.png", "--json", out / "t.json", "--table", out / "t.md", *more]
    analyze_training.main(["--log_dirs", *dirs, *map(str, flags)])
    return json.loads((out / "t.json").read_text())


def test_steps_and_seconds_to_a_fixed_fid(runs, tmp_path):
    record = analyse(runs, tmp_path)
    assert record["fid_at"] == 2.0 and np.isclose(record["top3_at"], 0.81)  # 2 x 1.0, 0.9 x 0.9
    first, second, slow = record["runs"].values()
    assert (first["steps_to_fid"], second["steps_to_fid"], slow["steps_to_fid"]) == (300, 200, None)
    assert (first["steps_to_top3"], second["steps_to_top3"]) == (400, 100)
    assert (second["best_fid"], second["best_fid_step"]) == (1.5, 200)
    assert np.isclose(first["seconds_to_fid"], 300 * PACE)  # the pause of 1000 s takes no part
    assert record["runs"]["A_1"]["curves"]["Test/FID"] == {
        "steps": [100, 200, 300, 400],
        "values": [8, 4, 2, 1],
    }


def test_thresholds_can_be_asked_for(runs, tmp_path):
    record = analyse(runs, tmp_path, "--fid_at", "9", "--top3_at", "0.1")
    assert [one["steps_to_fid"] for one in record["runs"].values()] == [100, 100, 400]
    assert [one["steps_to_top3"] for one in record["runs"].values()] == [100, 100, 100]


def test_the_table_gives_mean_and_range_over_seeds(runs, tmp_path):
    analyse(runs, tmp_path)
    header, _, a, b, *rest = (tmp_path / "t.md").read_text().splitlines()
    titles = [title.strip() for title in header.split("|")]
    a, b = ({title: x.strip() for title, x in zip(titles, line.split("|"))} for line in (a, b))
    assert (a["run"], a["seeds"]) == ("A", "2") and (b["run"], b["seeds"]) == ("B", "1")
    assert a["best FID"] == "1.250 (1.000 to 1.500)" and a["steps to FID"] == "250 (200 to 300)"
    assert b["steps to FID"] == "never" and b["best FID"] == "9.000"
    assert rest[-1] == "Thresholds: FID 2, top-3 0.81."


def test_a_group_whose_runs_did_not_all_arrive_says_so():
    runs = [{"steps_to_fid": 100}, {"steps_to_fid": None}]
    assert training_figure.cell(runs, "steps_to_fid", 0) == "100, 1 of 2 runs"
    assert training_figure.cell([{}], "best_fid", 3) == "-"


def test_seconds_that_nobody_measured_are_not_never():
    once = tuple(np.array([x]) for x in (3, 1.0, 1e6))  # one logged point: no pace
    facts = convergence.progress({"Train/loss": once, convergence.FID: once}, fid_at=2, top3_at=None)
    cells = [training_figure.cell([facts], f"{what}_to_fid", 0) for what in ("steps", "seconds")]
    assert cells == ["3", "-"]
    facts = convergence.progress({"Train/loss": once, convergence.FID: once}, fid_at=0.5, top3_at=None)
    assert training_figure.cell([facts], "seconds_to_fid", 0) == "never"


def test_the_threshold_of_a_spike_is_six_mads():
    norms = np.tile([0.0, 1.0, 2.0, 3.0, 4.0], 41)  # median 2, MAD 1 in the middle
    for height, is_spike in ((7.99, False), (8.01, True)):
        norms[102] = height
        assert np.flatnonzero(convergence.spikes(norms)).tolist() == [102] * is_spike


def test_variation_in_closed_form(runs, tmp_path):
    norms = analyse(runs, tmp_path)["runs"]["A_1"]  # after warm-up 1, 3, 1, 3, ... of mean 2
    assert norms["norm_points"] == 30 and norms["spikes"] == 0
    assert np.isclose(norms["cv"], np.sqrt(30 / 29) / 2)


def test_warm_up_takes_no_part(tmp_path):
    wild = np.ones(40)
    wild[:10] = 1000
    record = analyze_training.examine(
        {"w": analyze_training.read_points(write_run(tmp_path, [1], norms=wild))}
    )
    assert record["runs"]["w"]["cv"] == 0 and record["runs"]["w"]["spikes"] == 0


def test_a_steady_fall_is_no_unsteadiness():
    steps = np.arange(1000)
    curves = {convergence.NORM: (steps, np.exp(-steps / 400), steps)}
    found = convergence.steadiness(curves)
    assert found["cv"] > 0.5 and found["cv_detrended"] < 0.05 and found["spikes"] == 0


def figure_of(record, monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda f, path: drawn.append(f) or path.touch())
    training_figure.draw(record, tmp_path / "x.png")
    return drawn[0]


def panels(figure, label):
    """The axes of the row whose first one is labelled so, and those that share its y axis."""
    first = next(axes for axes in figure.axes if axes.get_ylabel().startswith(label))
    return first, first.get_shared_y_axes().get_siblings(first)


def test_losses_share_no_axis_and_judged_metrics_do(runs, tmp_path, monkeypatch):
    figure = figure_of(analyse(runs, tmp_path), monkeypatch, tmp_path)
    loss, shared = panels(figure, "Train/loss")
    assert len(shared) == 1 and loss.get_title() == "A"
    norm, shared = panels(figure, "gradient norm")
    assert len(shared) > 1  # divided by its own median it can be compared
    fid, _ = panels(figure, "Test/FID")
    assert {"A (seeds: 2)", "B (seeds: 1)"} <= set(fid.get_legend_handles_labels()[1])


def test_the_mean_curve_is_taken_where_all_seeds_have_a_point(runs, tmp_path):
    record = analyse(runs, tmp_path)
    x, y = training_figure.mean_curve(group_by(record["runs"].values())["A"], "Test/FID", 0)
    assert list(x) == [100, 200, 300, 400] and np.allclose(y, [8, 2.75, 2, 2])


def test_a_value_that_is_no_number_is_null_in_the_record_and_not_drawn(tmp_path, monkeypatch):
    norms = np.ones(40)
    norms[20] = np.inf
    folder = write_run(tmp_path / "C_1", [4, 2], norms=norms)
    analyze_training.main(
        ["--log_dirs", str(folder), "--output", f"{tmp_path}/t.png", "--json", f"{tmp_path}/t.json"]
    )
    record = json.loads((tmp_path / "t.json").read_text(), parse_constant=pytest.fail)
    assert record["runs"]["C_1"]["curves"]["Train/grad_norm"]["values"].count(None) == 1
    norm, _ = panels(figure_of(record, monkeypatch, tmp_path), "gradient norm")
    assert np.isnan(norm.lines[0].get_ydata()).any()
