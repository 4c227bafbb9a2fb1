"""Waypoints: what is read and refused, how the warp leads a path, that joints stand where it says."""

import json
import math

import numpy as np
import pytest
import torch

import sample
from experiments import waypoints
from experiments.waypoints import clip_tasks
from motion.skeletons import SMPL22
from tests.test_motion_process import walk
from tests.tiny import with_demo
from utils.data.clips import load_clips
from utils.datasets import find_dataset
from utils.errors import BadInput
from utils.generation import waypoints as routes
from utils.generation.waypoints import (
    SPEED,
    Arrival,
    PathFit,
    Waypoint,
    _worst_stretch,
    draw_along,
    frames_for,
    parse_waypoints,
    warp,
)
from utils.generation.windows import part_key
from utils.motion_process import joints_to_features

FPS = 20


def straight(frames=100, metres=0.05):
    """Rows of a body that goes straight ahead, as far each frame."""
    rows = np.zeros((frames, 67))
    rows[:, 2], rows[:, 3] = metres, 0.9
    return rows


def test_waypoints_are_read():
    points = parse_waypoints(" 1.5,0@2.0  1.5,2@4.5:90 ", FPS)
    assert points == [Waypoint(40, 1.5, 0.0), Waypoint(90, 1.5, 2.0, math.pi / 2)]
    assert frames_for(points) == 92 and frames_for(points, 120) == 120
    with pytest.raises(BadInput, match="frame 91, the motion has 80"):
        frames_for(points, 80)


def test_no_drawing_has_the_noise_of_another_prompts():
    words = ["--text_prompt", "walk", "--repeat_times", "1563"]
    sample.parse(words)  # of each only one is drawn
    assert sample.parse([*words, "--waypoints", "0,1@2", "--candidates", "63"]).candidates == 63
    with pytest.raises(BadInput, match="100,032 drawings of a prompt, 100,003 are the most: lower one"):
        sample.parse([*words, "--waypoints", "0,1@2"])  # 64 candidates


@pytest.mark.parametrize("text", ["-1,2@3", "-.5,2@3"])
def test_a_place_to_the_right_is_no_flag(text):
    assert sample.flags().parse_args(["--text_prompt", "walk", "--waypoints", text]).waypoints == text


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "empty"),
        ("1@2", "write x,z@seconds"),
        ("1,2,3@2", "write x,z@seconds"),
        ("1,2", "write x,z@seconds"),
        ("1,a@2", "write x,z@seconds"),
        ("0,1@1e308", "and below 9.8"),
        ("1,nan@2", "not a finite"),
        ("1,1@0", r"after the start \(0 s\), and below 9.8 s"),
        ("0,1@2 0,2@2", r"after that of the one before \(2 s\)"),
        ("0,1@20", "below 9.8"),
        ("0,9@2", "4.5 m/s, 3 are the most"),
        ("0,1@2 5,1@3", "5.0 m/s"),
    ],
)
def test_what_cannot_be_read_or_walked_is_refused(text, words):
    with pytest.raises(BadInput, match=words):
        parse_waypoints(text, FPS)


def test_a_path_is_turned_as_a_whole_for_free():
    """4 m straight ahead: a waypoint 4 m to the left costs nothing but the facing."""
    led = warp(straight(), [Waypoint(80, 4.0, 0.0)], FPS)
    assert led.facing == pytest.approx(math.pi / 2) and led.cost < 1e-12
    assert led.drawn.max() < 1e-12 and led.off.max() < 1e-9 and led.pace < 1e-9
    assert np.allclose(led.rows, straight())


def test_steps_grow_by_what_is_missing_and_no_more_than_they_may():
    led = warp(straight(), [Waypoint(80, 0.0, 4.4)], FPS)
    assert led.drawn[0] == pytest.approx(0.4) and led.off[0] < 0.01
    assert 0.1 < led.pace <= SPEED and np.abs(led.rows[:, 2] / 0.05 - 1).max() == pytest.approx(led.pace)
    far = warp(straight(), [Waypoint(80, 0.0, 6.0)], FPS)
    assert far.pace == pytest.approx(SPEED, abs=1e-3) and far.off[0] == pytest.approx(6 - 4 * 1.15, abs=0.01)


def test_two_waypoints_and_a_heading_bend_the_path():
    points = [Waypoint(40, 0.0, 2.0), Waypoint(80, 1.0, 3.7, math.radians(45))]
    led = warp(straight(), points, FPS)
    assert led.drawn.max() > 0.05 and led.off.max() < 0.01 and abs(led.heading_error[0]) < math.radians(2)
    assert np.abs(np.diff(led.rows[:, 0])).max() < math.radians(1)  # smoothly


def test_millimetres_are_led_as_metres_are():
    points, scale = [Waypoint(40, 0.3, 2.1), Waypoint(80, 1.0, 3.7, 0.5)], np.array([1.0] + 66 * [1000.0])
    led, small = warp(straight(), points, FPS), warp(straight() * scale, points, FPS, unit_m=0.001)
    assert np.allclose(small.rows / scale, led.rows, atol=1e-6) and np.allclose(small.drawn, led.drawn)


def test_the_slopes_of_the_fit_are_those_of_its_residuals():
    rng, rows = np.random.default_rng(0), straight()
    rows[:, :3] += rng.normal(0, 0.02, (100, 3))
    points = [Waypoint(30, 0.5, 1.2, 0.4), Waypoint(60, 1.0, 2.0), Waypoint(95, 1.5, 3.0, -0.2)]
    fit = PathFit(rows, points, FPS, 1.0)
    x = rng.normal(0, 0.1, 2 * fit.n + 1)
    step = 1e-6 * np.eye(len(x))
    slopes = [(fit.residuals(x + d) - fit.residuals(x - d)) / 2e-6 for d in step]
    assert np.allclose(fit.jacobian(x), np.transpose(slopes), rtol=1e-5, atol=1e-4)


def test_a_body_that_stands_is_not_turned_about_its_feet():
    rows = straight()
    rows[50:, 2] = 0
    led = warp(rows, [Waypoint(40, 1.0, 1.7), Waypoint(99, 1.0, 2.2)], FPS)
    assert np.abs(led.rows[65:, 0]).max() < 1e-6 < np.abs(led.rows[:40, 0]).max()


@pytest.mark.parametrize("seed", range(3))
def test_joints_are_where_the_warp_says(seed):
    """Rows of a curved walk: the root of the joints passes the waypoints, heading included."""
    rows = joints_to_features(walk(SMPL22, frames=81, turn=30.0 * seed), SMPL22)[:, :67].astype(np.float64)
    spec = type("Spec", (), {"skeleton": SMPL22})
    free = warp(rows, [Waypoint(60, 0.3, 1.0)], FPS).joints(spec)
    goal = free[[30, 60], 0][:, [0, 2]] * [1.02, 0.96]
    points = [Waypoint(30, *goal[0]), Waypoint(60, *goal[1])]
    led = warp(rows, points, FPS)
    there = led.joints(spec)[[30, 60], 0][:, [0, 2]]
    assert np.allclose(np.linalg.norm(there - goal, axis=1), led.off, atol=1e-6)
    assert led.off.max() < 0.03


def test_only_the_worst_stretch_is_drawn_again():
    motion = type("Motion", (), {"drawn": np.array([0.1, 0.5, 0.55])})
    points = [Waypoint(20, 0, 1), Waypoint(42, 0, 2), Waypoint(79, 0, 3)]
    hidden = _worst_stretch(motion, points, 20)
    assert hidden.tolist() == [5 <= k < 11 for k in range(20)]


def test_the_best_of_several_passes_its_waypoints(released):
    text, sampling = released.embed(["a person walks forward"]), released._sampling({"time_steps": 4})
    points = [Waypoint(30, 0.0, 1.0), Waypoint(62, 1.0, 1.6)]
    rows, joints, arrival = draw_along(released, text, points, 64, sampling, list(range(12)))
    root = joints[[30, 62], 0][:, [0, 2]]
    off = np.linalg.norm(root - [[0.0, 1.0], [1.0, 1.6]], axis=1)
    assert rows.shape == (64, 67) and joints.shape == (64, 22, 3)
    assert off.max() == pytest.approx(arrival.worst_m, abs=1e-3) and off.max() < 0.1 < arrival.drawn_m
    again = draw_along(released, text, points, 64, sampling, list(range(12)))
    assert np.array_equal(again[1], joints)


def test_what_no_drawing_reaches_is_refused(released):
    text, sampling = released.embed(["a person sits down"]), released._sampling({"time_steps": 2})
    with pytest.raises(BadInput, match="best of 2 drawings misses one by"):
        draw_along(released, text, [Waypoint(40, 0.0, 5.0)], 44, sampling, [0, 1])


def test_a_real_clip_meets_the_waypoints_of_its_own_way(world, monkeypatch):
    monkeypatch.setattr(waypoints, "FAR", 0.02)  # the little set's test clips hardly go anywhere
    spec, root = find_dataset("Demo", str(world / "datasets"))
    clips = {clip.captions[0].text: clip for clip in load_clips(spec, root, "test")}
    tasks = list(clip_tasks(spec, str(world / "datasets"), 6))
    assert {len(task.points) for task in tasks} == {1, 2, 3}
    for task in tasks:
        found = warp(clips[task.prompt].motion, task.points, spec.fps)
        assert found.drawn.max() < 1e-3 and np.abs(found.heading_error).max(initial=0) < 1e-2, task


def test_the_table_counts_what_arrives_and_who_answers(tmp_path, capsys):
    waypoints.main(["--tasks", "2", "--candidates", "2", "--output", str(tmp_path / "w.json")])
    rows = json.loads((tmp_path / "w.json").read_text())["rows"]
    near = sum("arrival" in row and row["arrival"]["worst_m"] <= 0.05 for row in rows)
    assert f"all waypoints within 5 cm: {near} of 2" in capsys.readouterr().out


def test_sample_py_leads_every_motion_and_says_how_far(tmp_path, capsys):
    words = ["--text_prompt", "a person walks forward", "--time_steps", "3", "--export", "npy"]
    words += ["--waypoints", "0.5,1@2", "--candidates", "8", "--fix_feet"]
    folder = with_demo(sample.main, words, tmp_path)
    out = capsys.readouterr().out
    assert "cm off as drawn" in out and "foot skate" not in out  # the feet are held already
    (motion,) = [np.load(file) for file in folder.glob("*.npy")]
    (entry,) = json.loads((folder / "samples.json").read_text())[-1]["motions"]
    off = np.linalg.norm(motion[40, 0, [0, 2]] - [0.5, 1.0])
    assert len(motion) == 44 and off == pytest.approx(entry["waypoints"]["worst_m"], abs=1e-3)
    assert torch.isfinite(torch.from_numpy(motion)).all()


def test_a_prompt_that_does_not_get_there_is_left_out_and_named(demo_weights, tmp_path, monkeypatch):
    def some_arrive(pipeline, text, points, frames, sampling, keys):
        if keys[0] // part_key(1, 0) == 1:
            raise BadInput("--waypoints: the best of 8 drawings misses one by 3.0 m")
        return np.zeros((44, 67), np.float32), np.zeros((44, 22, 3)), Arrival(0.1, 0.0, 0.0, 0.0, 0.0)

    (tmp_path / "three.txt").write_text("walk\nsit\nrun\n")
    monkeypatch.setattr(routes, "draw_along", some_arrive)
    words = ["--text_path", str(tmp_path / "three.txt"), "--waypoints", "0,1@2", "--repeat_times", "2"]
    with pytest.raises(BadInput, match="^2 of 6 motions left out: 'sit', repeat 0: .*; 'sit', repeat 1: "):
        with_demo(sample.main, [*words, "--export", "npy"], tmp_path, demo_weights)
    folder = tmp_path / "demo_MARDM_Demo"
    made = json.loads((folder / "samples.json").read_text())[-1]["motions"]
    assert [one["prompt"] for one in made] == ["walk", "walk", "run", "run"]
    assert len(list(folder.glob("*.npy"))) == 4
