"""The HTML viewer: what the page holds, and, in a headless Chromium where there is one, what it does."""

import base64
import json
import os
import re
import time
from dataclasses import replace

import numpy as np
import pytest

from motion.bvh.pose import fit_bones
from motion.export import Motion
from motion.render.viewer import quantise, safe_json, write_html
from motion.skeletons import KIT21, SMPL22
from tests.bodies import rest_pose
from tests.browser import WEBGL, Browser, needs_browser

HOSTILE = '</script><script>window.hacked=1</script><img src=x onerror="hacked=1"> {{script}} "\' \u2028 &lt;'
BLUE, ORANGE = (0x21, 0x66, 0xC4), (0xE0, 0x70, 0x1A)  # left and right on light paper


def swinging(frames=40, skeleton=SMPL22, metres=2.0):
    """A skeleton that walks along +Z and swings its limbs, in the skeleton's unit -> [T,J,3]."""
    pose = rest_pose(skeleton, 0.22)
    pose[:, 1] -= pose[:, 1].min()
    motion = np.repeat(pose[None], frames, axis=0)
    motion[:, :, 2] += metres * np.linspace(0, 1, frames)[:, None]
    motion[:, skeleton.wrists[0], 1] += 0.4 + 0.3 * np.sin(np.arange(frames) / 2)
    return motion / skeleton.unit_m


def page_data(path):
    return json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(encoding="utf-8"), re.S)[1])


def test_positions_come_back_within_half_a_step():
    for reach in (1.0, 16.0, 400.0):
        motion = np.random.default_rng(0).uniform(-reach, reach, size=(20, 22, 3))
        packed = quantise(motion)
        numbers = np.frombuffer(base64.b64decode(packed["positions"]), "<i2").reshape(motion.shape)
        assert np.abs(numbers * packed["unit"] - motion).max() <= 0.5 * packed["unit"] + 1e-12
        assert packed["unit"] == pytest.approx(max(0.0005, reach / 32767), rel=0.01)


def test_the_embedded_json_cannot_end_its_block_and_reads_back_equal():
    value = {"caption": HOSTILE, "more": ["<!--", "]]>", "走"]}
    text = safe_json(value)
    assert not set("<>&\u2028") & set(text) and json.loads(text) == value


@pytest.mark.parametrize("skeleton", [SMPL22, KIT21], ids=lambda s: s.name)
def test_the_page_holds_the_motions_in_metres_and_nothing_from_outside(tmp_path, skeleton):
    motions = [swinging(196, skeleton), swinging(60, skeleton)]
    path = write_html(tmp_path / "a.html", motions, ["one", HOSTILE], 12.5, skeleton)
    text, data = path.read_text(encoding="utf-8"), page_data(path)
    assert path.stat().st_size < 400_000 and os.listdir(tmp_path) == ["a.html"]
    assert not re.search(
        r"""(?:src|href|url|import|fetch)\s*[=(]|https?:""", text.replace(safe_json(data), "")
    )
    assert text.count("<script") == text.count("</script>") == 2  # ours and the data, no caption's
    assert '<output id="clock" aria-live="off">' in text  # screen readers would read it out at every frame
    assert data["fps"] == 12.5 and [m["frames"] for m in data["motions"]] == [196, 60]
    height = np.frombuffer(base64.b64decode(data["motions"][0]["positions"]), "<i2").reshape(196, -1, 3)[
        ..., 1
    ]
    assert height.max() * data["motions"][0]["unit"] == pytest.approx(
        motions[0][..., 1].max() * skeleton.unit_m, abs=1e-3
    )


def test_what_cannot_be_shown_is_refused_and_nothing_is_written(tmp_path):
    for motions, captions, words in [
        (np.full((2, 22, 3), np.inf), "a", "132 NaN or infinite"),
        (np.zeros((2, 21, 3)), "a", "shape"),
        (swinging(2), ["a", "b"], "2 captions for 1"),
    ]:
        with pytest.raises(ValueError, match=words):
            write_html(tmp_path / "a.html", motions, captions)
    assert not os.listdir(tmp_path)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def viewer(browser, tmp_path):
    """Two motions side by side, paused at the first frame."""
    browser.open(write_html(tmp_path / "a.html", [swinging(40), swinging(20)], ["walk & wave", HOSTILE], 20))
    browser.scrub(0)
    yield browser
    assert browser.errors() == []


def like(picture, colour):
    """Mask of the opaque pixels of about this colour (R, G, B of 255)."""
    return (np.abs(255 * picture[..., :3] - colour).sum(axis=-1) < 60) & (picture[..., 3] == 1)


def drawn(picture, colour):
    return like(picture, colour).sum()


def clock(browser):
    return browser.js("document.getElementById('clock').textContent")


@needs_browser
def test_it_draws_both_sides_and_the_floor_and_frames_differ(viewer):
    for panel in (0, 1):
        first = viewer.canvas(panel)
        assert drawn(first, BLUE) > 300 and drawn(first, ORANGE) > 300
        assert (first[..., 3] > 0).mean() > 0.03
    viewer.scrub(15)
    assert clock(viewer) == "frame 16/40  0.75 s"
    later = viewer.canvas(1)
    assert later.shape == first.shape and (later != first).any(axis=-1).mean() > 0.01
    viewer.scrub(0)
    assert np.array_equal(viewer.canvas(1), first)


@needs_browser
def test_without_webgl_there_is_a_stick_figure_and_no_button_for_a_body(viewer):
    assert viewer.js("byId('body').disabled && byId('body').getAttribute('aria-pressed') === 'false'")


@needs_browser
@pytest.mark.parametrize("skeleton", [SMPL22, KIT21], ids=lambda s: s.name)
def test_the_bones_of_the_body_are_where_the_joints_are(browser, tmp_path, skeleton):
    motion = swinging(40, skeleton)
    motion += 10 / skeleton.unit_m * np.array([0.3, 0, 1])
    browser.open(write_html(tmp_path / "a.html", motion, "walk", 20, skeleton))
    browser.js(
        """places = (frame) => {
          const [one] = motions, turns = new Int16Array(bytesOf(one.body.turns).buffer), rests = [];
          const rows = boneRows(DATA.mannequin, one, turns, frame, poseAt(one, frame)[0]);
          DATA.mannequin.parents.forEach((parent, k) =>
            rests.push(parent < 0 ? [0, 0, 0] : add(rests[parent], one.body.offsets[k])));
          return rests.map((rest, k) => [0, 1, 2].map((i) =>
            rows[12 * k + 4 * i + 3] + dot(rows.slice(12 * k + 4 * i), rest) / one.body.unit));
        }"""
    )
    inner = sorted(set(skeleton.parents[1:]))
    fitted = fit_bones(motion * skeleton.unit_m, replace(skeleton, unit_m=1.0))[:, inner]
    for frame in (0, 17, 39):
        assert np.abs(np.array(browser.js(f"places({frame})")) - fitted[frame]).max() < 2e-3
    over = [inner.index(skeleton.parents[joint]) for joint in inner[1:]]
    between = np.array(browser.js("places(20.5)"))  # bones turn, they do not shrink
    lengths = [np.linalg.norm((at[1:] - at[over]), axis=-1) for at in (between, fitted[20])]
    assert np.abs(lengths[0] - lengths[1]).max() < 2e-3


@pytest.fixture(scope="module")
def solid(tmp_path_factory):
    """A browser with WebGL."""
    browser = Browser(tmp_path_factory.mktemp("profile"), *WEBGL)
    yield browser
    browser.close()


@needs_browser
def test_with_webgl_there_is_a_body_with_a_shadow(solid, tmp_path):
    path = write_html(tmp_path / "a.html", [swinging(40), swinging(20)], ["walk", HOSTILE], 20)
    solid.open(path)
    solid.scrub(10)
    first = [solid.canvas(panel) for panel in (0, 1)]
    for picture in first:
        saturation = np.ptp(picture[..., :3], axis=-1)
        body = picture[..., 3] == 1
        assert (body & (saturation > 0.4)).sum() > 500  # limbs
        assert (body & (saturation < 0.1) & (picture[..., 0] > 0.4)).sum() > 500  # trunk and head
        shadow = (picture[..., :3].max(axis=-1) < 0.05) & (picture[..., 3] > 0.02) & (picture[..., 3] < 0.3)
        assert shadow.sum() > 150
    solid.scrub(15)
    assert (solid.canvas(0) != first[0]).any(axis=-1).mean() > 0.01
    solid.scrub(10)
    assert np.array_equal(solid.canvas(0), first[0])
    solid.drag(60, 0)
    assert (solid.canvas(1) != first[1]).any(axis=-1).mean() > 0.01
    solid.key("r", text="r")
    solid.key("b", text="b")
    stick = solid.canvas(0)
    assert drawn(stick, BLUE) > 300 and not np.array_equal(stick, first[0])
    solid.js("byId('body').click()")
    solid.settle()
    assert np.array_equal(solid.canvas(0), first[0])
    assert solid.errors() == []


@needs_browser
def test_a_motion_that_is_over_stays_and_fades(viewer):
    viewer.scrub(19)
    last = viewer.canvas(1)
    viewer.scrub(39)
    faded = viewer.canvas(1)
    assert drawn(last, BLUE) > 300 and drawn(viewer.canvas(0), BLUE) > 300
    assert drawn(faded, BLUE) == 0 and (faded[..., 3] > 0).sum() > 0.9 * (last[..., 3] > 0).sum()


@needs_browser
def test_nobody_fades_before_the_motion_is_over(browser, tmp_path):
    """Also between the last frame and the first of the next round."""
    browser.open(write_html(tmp_path / "a.html", swinging(40), "walk", 20))
    browser.scrub(39)
    last = browser.canvas()
    browser.js("change({ frame: 39.5 })")
    browser.settle()
    assert np.array_equal(browser.canvas(), last)


@needs_browser
def test_a_loop_plays_its_last_step(browser, tmp_path):
    loop = swinging(41, metres=0.0)
    loop[40] = loop[0]
    path = Motion(loop[:40], "a loop", 20, SMPL22, closing=loop[40:]).save(tmp_path / "a.html")
    assert page_data(path)["motions"][0]["frames"] == 40
    browser.open(path)
    browser.key("End")
    assert clock(browser).startswith("frame 40/40")
    browser.js("change({ frame: 39.5 })")
    between = np.array(browser.js("poseAt(motions[0], state.frame)"))
    assert np.abs(between - (loop[39] + loop[0]) / 2).max() < 1e-3
    turns = "new Int16Array(bytesOf(motions[0].body.turns).buffer)"
    first, half, end = (
        np.array(browser.js(f"[...boneRows(DATA.mannequin, motions[0], {turns}, {frame}, [0, 0, 0])]"))
        for frame in (0, 39.5, 39)
    )
    assert np.abs(half - end).max() > 1e-3 < np.abs(half - first).max()


@needs_browser
def test_the_left_side_is_where_it_belongs(viewer):
    """The person faces the viewer's side of +Z: its left (blue) is on the right of the picture."""
    left, right = (np.nonzero(like(viewer.canvas(0), colour))[1].mean() for colour in (BLUE, ORANGE))
    assert left > right + 5


@needs_browser
def test_it_plays_and_pauses_by_keyboard_and_button(viewer):
    viewer.key(" ", text=" ")
    viewer.wait("Number(document.getElementById('time').value) > 2")
    viewer.js("byId('play').focus(), byId('play').click()")  # as a mouse does: the button has the focus
    viewer.settle()
    stopped = clock(viewer)
    time.sleep(0.2)
    assert clock(viewer) == stopped
    viewer.key("Home")
    viewer.key("ArrowRight")
    viewer.key("ArrowRight")
    viewer.key("ArrowLeft")
    assert clock(viewer).startswith("frame 2/40")
    viewer.key("End")
    assert clock(viewer).startswith("frame 40/40")


@needs_browser
def test_the_keyboard_turns_the_camera_as_the_pointer_does(viewer):
    start, at = viewer.canvas(0), clock(viewer)
    viewer.drag(40, -20)
    dragged = viewer.canvas(0)
    viewer.key("r")
    for key in ("ArrowRight", "ArrowRight", "ArrowUp"):
        viewer.key(key, modifiers=8)  # shift
    assert clock(viewer) == at
    assert np.array_equal(viewer.canvas(0), dragged) and not np.array_equal(dragged, start)


@needs_browser
def test_the_pointer_turns_and_the_wheel_zooms_all_panels(viewer):
    start = [viewer.canvas(0), viewer.canvas(1)]
    middle = viewer.drag(60, 0)
    turned = [viewer.canvas(0), viewer.canvas(1)]
    assert all((a != b).any() for a, b in zip(start, turned))
    viewer.call("Input.dispatchMouseEvent", type="mouseWheel", **middle, deltaX=0, deltaY=-500)
    viewer.settle()
    assert drawn(viewer.canvas(1), BLUE) > 1.3 * drawn(turned[1], BLUE)
    viewer.key("r", text="r")
    assert all(np.array_equal(viewer.canvas(i), start[i]) for i in (0, 1))


@needs_browser
def test_captions_are_text_and_cannot_run(viewer):
    shown = viewer.js("[...document.querySelectorAll('figcaption')].map(c => c.textContent)")
    assert shown == ["walk & wave", " ".join(HOSTILE.replace("\u2028", " ").split())]
    assert viewer.js("typeof window.hacked") == "undefined"
    assert viewer.js("document.querySelectorAll('img, figcaption *').length") == 0
