"""Rendering: what the camera frames, what the pictures show, nothing half-written, nothing left in memory."""

import json
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from PIL import Image

from experiments import blind, grid_picture, pictures
from motion.captions import wrap_caption
from motion.render import rendering
from motion.render.camera import FIXED_SPAN, MARGIN, Camera, fit_camera, follow
from motion.render.rendering import SIDE_COLOURS, contact_sheet, render_video
from motion.skeletons import KIT21, SMPL22
from tests.bodies import rest_pose
from utils.errors import BadInput

SMALL = 192  # pixels of a panel here
_, LEFT, RIGHT = SIDE_COLOURS


def standing(skeleton=SMPL22):
    """The rest pose, facing +Z, in the skeleton's unit -> [J,3]."""
    pose = rest_pose(skeleton, 0.22)
    pose[:, 1] -= pose[:, 1].min()
    return pose / skeleton.unit_m


def walking(path, yaw=0.0, skeleton=SMPL22):
    """The rest pose, turned and carried along a path on the floor [T,2] in metres -> [T,J,3]."""
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    steps = np.stack([path[:, 0], np.zeros(len(path)), path[:, 1]], axis=1) / skeleton.unit_m
    return standing(skeleton) @ turn.T + steps[:, None]


def on_the_spot(frames=3, **kwargs):
    return walking(np.zeros((frames, 2)), **kwargs)


def read_video(path):
    """-> metadata, frames uint8 [T,H,W,3]."""
    reader = imageio_ffmpeg.read_frames(str(path))
    meta = next(reader)
    width, height = meta["size"]
    return meta, np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader])


def pixels_like(picture, colour, tolerance=60):
    """Mask of the pixels near a colour; the labels in the lowest 24 rows are left out."""
    near = np.abs(picture[..., :3].astype(int) - 255 * np.array(to_rgb(colour))).sum(axis=-1) < tolerance
    near[-24:] = False
    return near


def test_the_camera_is_a_rigid_frame_that_puts_its_target_in_the_middle():
    camera = Camera(span=1.5, azimuth=0.7, elevation=0.3)
    assert np.allclose(camera.axes @ camera.axes.T, np.eye(3))
    assert np.linalg.det(camera.axes) == pytest.approx(1)
    target = np.array([3.0, 1.0, -2.0])
    picture, scale = camera.project(target, target)
    assert np.allclose(picture, 0) and scale == pytest.approx(1 / 1.5)
    # one span above the target in the plane of the picture is the upper edge
    assert np.allclose(camera.project(target + 1.5 * camera.axes[1], target)[0], (0, 1))
    nearer, farther = (camera.project(target + side * camera.axes[2], target)[1] for side in (1, -1))
    assert nearer > scale > farther


def test_from_the_front_the_persons_left_is_on_the_viewers_right():
    (right, up, _) = Camera(1.0, azimuth=0.0, elevation=0.0).axes
    assert np.allclose(right, (1, 0, 0)) and np.allclose(up, (0, 1, 0))


@pytest.mark.parametrize("metres", [0.0, 0.8, 3.0, 12.0, 60.0])
@pytest.mark.parametrize("heading", [0.0, 1.9, 4.0])
def test_every_joint_stays_in_the_picture_and_the_person_stays_large(metres, heading):
    way = np.linspace(0, metres, 120)[:, None] * (np.sin(heading), np.cos(heading))
    motion = walking(way, heading)
    camera, (target,) = fit_camera([motion], fps=20)
    picture, scale = camera.project(motion, target[:, None])
    assert np.abs(picture).max() <= MARGIN + 1e-9 and (scale > 0).all()
    assert camera.span <= 2 * FIXED_SPAN
    assert np.ptp(target, axis=0).max() == 0 or metres > 1


def test_the_camera_goes_with_a_steady_walk_without_lag_and_smooths_the_sway():
    way = np.linspace((0, 0), (3, 9), 80)
    assert np.allclose(follow(way, fps=20), way)
    sway = 0.1 * np.sin(2 * np.pi * np.arange(80) / 10)[:, None]  # two steps a second
    assert np.abs(follow(way + sway, fps=20) - way)[20:-20].max() < 0.01
    assert np.allclose(follow(way[:1], fps=20), way[:1])


def test_a_video_has_every_frame_and_both_sides_in_their_colours(tmp_path):
    motion = walking(np.linspace((0, 0), (0, 1), 12))
    meta, frames = read_video(render_video(tmp_path / "a.mp4", motion, fps=12.5, caption="walk", panel=SMALL))
    assert len(frames) == 12 and meta["fps"] == pytest.approx(12.5) and meta["codec"] == "h264"
    assert all((a != b).any() for a, b in zip(frames, frames[1:]))
    for frame in frames:
        assert pixels_like(frame, LEFT).sum() > 100 and pixels_like(frame, RIGHT).sum() > 100


@pytest.mark.parametrize("skeleton", [SMPL22, KIT21], ids=lambda s: s.name)
@pytest.mark.parametrize("yaw, left_is", [(0.0, 1), (np.pi, -1)], ids=["facing us", "facing away"])
def test_the_left_side_is_where_it_belongs(tmp_path, skeleton, yaw, left_is):
    contact_sheet(tmp_path / "a.png", on_the_spot(1, yaw=yaw, skeleton=skeleton), skeleton, n_frames=1)
    picture = 255 * imread(tmp_path / "a.png")
    left, right = (np.nonzero(pixels_like(picture, colour))[1].mean() for colour in (LEFT, RIGHT))
    assert left_is * (left - right) > 5


def test_the_ball_of_the_head_is_there_wherever_the_person_stands():
    """Its ends lie so close together that Agg, where it snaps parts to pixels, makes them one: no ball."""
    camera, person = Camera(1.5), on_the_spot(1)
    canvas, (ax,) = rendering._page(1, 1, SMALL, "", [""])
    canvas.draw()
    empty, ball = canvas.copy_from_bbox(canvas.figure.bbox), person[0, SMPL22.head]
    rows, columns = np.mgrid[:SMALL, :SMALL] + 0.5
    for x in np.linspace(-0.8, 0.8, 80):
        target = np.array([0, 0.9, 0]) + x * camera.axes[0]
        canvas.restore_region(empty)
        rendering._Actor(ax, person, [target], camera, SMPL22).draw(0)
        (right, up), scale = camera.project(ball, target)
        away = np.hypot(columns - SMALL * (1 + right) / 2, rows - SMALL * (1 - up) / 2)
        inside = away < 0.8 * rendering.HEAD_SIZE / 2 * scale * SMALL / 2
        dark = np.asarray(canvas.buffer_rgba())[..., :3].max(axis=-1) < 160
        assert dark[inside].mean() > 0.75, x


def test_a_motion_that_ends_early_keeps_its_last_pose_faded(tmp_path):
    long, short = walking(np.linspace((0, 0), (0, 0.5), 10)), on_the_spot(4)
    _, frames = read_video(render_video(tmp_path / "a.mp4", [long, short], titles=["a", "b"], panel=SMALL))
    panel = frames[:, :-24, SMALL:]
    assert len(frames) == 10
    assert pixels_like(panel[3], LEFT).sum() > 100 and pixels_like(panel[4], LEFT).sum() == 0
    assert np.abs(panel[9].astype(int) - panel[5]).mean() < 1


def test_a_contact_sheet_has_one_panel_per_moment(tmp_path):
    motions = [walking(np.linspace((0, 0), (0, 4), 30)), on_the_spot(2)]
    contact_sheet(tmp_path / "a.png", motions, titles=["a", "b"], n_frames=5, panel=SMALL)
    picture = 255 * imread(tmp_path / "a.png")
    assert picture.shape[:2] == (2 * SMALL, 5 * SMALL)
    for row in range(2):
        for column in range(5):
            top = row * SMALL
            panel = picture[top : top + SMALL, column * SMALL : (column + 1) * SMALL]
            assert pixels_like(panel, LEFT).sum() > 50 and pixels_like(panel, RIGHT).sum() > 50


def test_a_gif_has_every_frame_at_its_pace(tmp_path):
    motion = walking(np.linspace((0, 0), (0, 1), 7))
    with Image.open(render_video(tmp_path / "a.GIF", motion, fps=20, panel=SMALL)) as gif:
        assert gif.n_frames == 7 and gif.info["duration"] == 50


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "$\\frac{$",
        "a\nb\0c\x1b[31m",
        "走路 " * 400,
        "🕺💃" * 30,
        "رجل يمشي",
        "\ud800 lone",
        "x" * 10_000,
    ],
    ids=["empty", "mathtext", "control", "chinese", "emoji", "arabic", "surrogate", "long"],
)
def test_any_caption_can_be_drawn(tmp_path, caption):
    path = render_video(tmp_path / "a.gif", on_the_spot(1), caption=caption, titles=[caption], panel=SMALL)
    with Image.open(path) as gif:
        assert np.asarray(gif.convert("L")).std() > 0.05 * 255


def test_captions_wrap_to_the_width_and_end_with_an_ellipsis():
    assert wrap_caption("a person walks", 40) == ["a person walks"]
    lines = wrap_caption("a person walks " * 50, 30)
    assert len(lines) == 3 and all(len(line) <= 30 for line in lines) and lines[-1].endswith("…")
    assert all(len(line) <= 15 for line in wrap_caption("走" * 100, 30))


@pytest.mark.parametrize(
    "motion, words",
    [
        (np.full((4, 22, 3), np.nan), "264 NaN"),
        (np.zeros((4, 21, 3)), r"shape \(4, 21, 3\)"),
        (np.zeros((0, 22, 3)), r"shape \(0, 22, 3\)"),
        ([], "no motion"),
    ],
)
def test_what_cannot_be_drawn_is_refused_and_nothing_is_written(tmp_path, motion, words):
    with pytest.raises(ValueError, match=words):
        render_video(tmp_path / "a.mp4", motion)
    with pytest.raises(ValueError, match=r"\.mp4 or \.gif"):
        render_video(tmp_path / "a.avi", on_the_spot())
    assert not list(tmp_path.iterdir())


def test_a_motion_in_millimetres_is_drawn_on_a_floor_of_bounded_size(tmp_path, monkeypatch):
    """Else its floor would be kilometres of lines, more than the memory holds."""
    radii, lines = [], rendering._floor_lines
    monkeypatch.setattr(rendering, "_floor_lines", lambda at, radius: radii.append(radius) or lines(at, 2.5))
    render_video(tmp_path / "a.mp4", 1000 * on_the_spot(1), panel=SMALL)
    assert radii == [12]


@pytest.mark.parametrize("frames, t, before, after", [(200, 60, 60, 139), (1501, 700, 500, 500)])
def test_of_a_long_motion_the_path_near_a_frame_is_drawn(frames, t, before, after):
    """Else a frame of a motion of 8,000 would cost four times one of 500."""
    _, (ax,) = rendering._page(1, 1, SMALL, "", [""])
    motion = walking(np.stack([np.linspace(0, 1, frames), np.zeros(frames)], axis=1))
    camera, (target,) = rendering.fit_camera([motion], 20)
    actor = rendering._Actor(ax, motion, target, camera, SMPL22)
    actor._set_path(t)
    past, future = actor.past.get_segments(), actor.future.get_segments()
    assert (len(past), len(future)) == (before, after)
    ends, _ = camera.project(motion[[t, t + 1], 0] * (1, 0, 1), target[t])
    np.testing.assert_allclose([past[-1][1], *future[0]], [ends[0], *ends])


def test_a_failure_in_the_middle_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = render_video(tmp_path / "a.mp4", on_the_spot(4), panel=SMALL)
    before = path.read_bytes()
    draw = rendering._Actor.draw

    def stops_at_three(actor, t):
        if t == 3:
            raise RuntimeError("stop")
        draw(actor, t)

    monkeypatch.setattr(rendering._Actor, "draw", stops_at_three)
    with pytest.raises(RuntimeError, match="stop"):
        render_video(path, on_the_spot(9), panel=SMALL)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_pyplot_and_its_global_state_stay_out():
    code = "import sys, motion.render.rendering; sys.exit('matplotlib.pyplot' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


def test_a_generators_prompts_become_a_moving_picture_or_a_sheet(tmp_path):
    texts = tmp_path / "prompts.txt"
    texts.write_text("a person walks forward#24\na man jumps#28\n")
    common = ["--text_path", str(texts), "--panel", "64"]
    for name in ("two.gif", "two.png"):
        pictures.main([*common, "--moments", "3", "--output", str(tmp_path / name)])
    with Image.open(tmp_path / "two.gif") as moving:
        assert moving.n_frames == 28 and moving.size == (128, 64)
    with Image.open(tmp_path / "two.png") as sheet:
        assert sheet.size == (3 * 64, 2 * 64)
    with pytest.raises(BadInput, match="--output"):
        pictures.main([*common, "--output", str(tmp_path / "two.jpg")])


def test_motions_are_judged_without_their_names(tmp_path, capsys):
    texts, marks, out = tmp_path / "prompts.txt", tmp_path / "marks.txt", tmp_path / "blind"
    texts.write_text("a person jumps\na person waves\n")
    drawing = ["--runs", "Demo/demo_MARDM", "CMU/cmu_MARDM", "--text_path", str(texts), "--seconds", "1.2"]
    blind.main([*drawing, "--moments", "2", "--panel", "64", "--output_dir", str(out)])
    assert Image.open(out / "01.png").size == Image.open(out / "02.png").size == (2 * 64, 4 * 64)
    order = json.loads((out / "order.json").read_text())
    assert [sorted(rows) for rows in order] == [["CMU/cmu_MARDM"] * 2 + ["Demo/demo_MARDM"] * 2] * 2
    marks.write_text("\n".join("".join(str(int("CMU" in name)) for name in rows) for rows in order))
    capsys.readouterr()
    blind.main(["--judged", str(marks), "--output_dir", str(out)])
    assert capsys.readouterr().out.splitlines() == [
        "CMU/cmu_MARDM: 4 of 4 show their prompt",
        "Demo/demo_MARDM: 0 of 4 show their prompt",
    ]
    for wrong in ("1001", "10012\n1001", "100x\n1001"):
        marks.write_text(wrong)
        with pytest.raises(BadInput, match="needs 2 lines"):
            blind.main(["--judged", str(marks), "--output_dir", str(out)])


@pytest.mark.parametrize("order", ['[["a", "b"]', "5", "[5]", "[[5]]"])
def test_marks_are_not_counted_by_a_damaged_order(tmp_path, order):
    (tmp_path / "marks.txt").write_text("10")
    (tmp_path / "order.json").write_text(order)
    with pytest.raises(BadInput, match="order.json is not what drawing the pictures wrote"):
        blind.main(["--judged", str(tmp_path / "marks.txt"), "--output_dir", str(tmp_path)])


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "0"])
def test_motions_to_judge_have_a_length(seconds, capsys):
    with pytest.raises(SystemExit):
        blind.main(["--runs", "a", "--text_path", "b", f"--seconds={seconds}"])
    assert f"{seconds} is not between 0.1 and 16" in capsys.readouterr().err


def test_a_coordinate_at_its_own_level_is_the_motion_and_elsewhere_it_is_not(released, tmp_path):
    (motion,) = released.generate(["a person kicks"], seconds=2)
    poses, own = grid_picture.variations(released, motion, 0.5)
    assert [len(levels) for levels in poses] == released.autoencoder.ae.fsq_levels
    here = [levels[k] for levels, k in zip(poses, own)]
    assert all(np.allclose(pose, here[0], atol=1e-5) for pose in here)
    assert all(np.ptp(levels, axis=0).max() > 1e-4 for levels in poses)
    grid_picture.main(["--output", str(tmp_path / "grid.png")])
    with Image.open(tmp_path / "grid.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 10
