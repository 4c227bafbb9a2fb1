"""The browser page: checks of requests, files written, and a visit with Chromium."""

import base64
import contextlib
import errno
import http.client
import io
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.image import imread

import app
import edit
import sample
from motion.bvh import read_bvh
from motion.render.viewer import time_line, viewer_frame
from tests.browser import Browser, needs_browser
from tests.conftest import ROOT
from tests.test_viewer import BLUE, ORANGE
from utils.app.backend import Backend, Request, check_edit, check_request
from utils.app.page import errors_on_the_page
from utils.datasets import DATASETS
from utils.errors import BadInput
from utils.flags import settled
from utils.generation import waypoints as routes
from utils.generation.waypoints import parse_waypoints

SPEC = DATASETS["t2m"]
DRAWING = {"seed": 1, "cfg": 2.5, "rounds": 4, "variations": 2}
GOOD = {"prompt": "walk", "estimate": False, "seconds": 4, "waypoints": ""} | DRAWING
CHANGE = {"prompt": "jump", "which": 1, "sections": "8,24"} | DRAWING
HOSTILE = '</title><script>document.title="hacked"</script><img src=x onerror="document.title=1"> ${1+1}'


def request(**changes):
    return check_request(SPEC, GOOD | changes)


def test_a_good_request_is_whole_tokens_and_clean_text():
    assert request(prompt=" a\tb\0 ", seconds=4.17) == Request(("a b",), (80,), 1, 2.5, 4, 2)
    assert request(estimate=True, seconds="any").frames == (0,)
    assert request(seconds=9.8).frames == (196,) and request(seconds=2).frames == (40,)


def test_several_lines_are_a_story_with_lengths_of_its_own():
    story = request(prompt="walk\n\n sit #80\nrun#NA", seconds=3)
    assert story.prompts == ("walk", "sit", "run") and story.frames == (60, 80, 0)
    assert request(prompt="walk #80").prompts == ("walk #80",)
    assert request(prompt="# my story\nwalk\n #\u00a0then\nsit\n").prompts == ("walk", "sit")  # comments
    with pytest.raises(BadInput, match="Write what"):
        request(prompt="# my story\n# of nobody")
    with pytest.raises(BadInput, match="7 lines, 6 are the most: leave some out"):
        request(prompt="walk\n" * 7)
    with pytest.raises(BadInput, match="line 2: 900 frames"):
        request(prompt="walk\nsit#900")


def test_waypoints_make_a_motion_long_enough_and_are_bounded_as_on_the_command_line():
    led = request(waypoints=" 0,1@2 1,2@4.5:90 ", estimate=True)
    assert led.frames == (92,) and led.waypoints == "0,1@2 1,2@4.5:90"
    for waypoints, reason in (
        ("0,9@2", "m/s"),
        ("0,1@20", "below"),
        ("x", "write"),
        ("0,1@9", "has 80"),
        ("1" * 201, "200"),
    ):
        with pytest.raises(BadInput, match=reason):
            request(waypoints=waypoints)
    with pytest.raises(BadInput, match="story"):
        request(prompt="walk\nsit", waypoints="0,1@2")


@pytest.mark.parametrize(
    ("field", "value"),
    [("prompt", x) for x in ("", " \n\0", None, 7, ["walk"], "x" * 1001, " " * 10**6)]
    + [("seconds", x) for x in (0, 1.9, 9.9, 1e9, -1, None, "long", float("nan"), float("inf"), [4])]
    + [("estimate", x) for x in (None, 0, "no", [])]
    + [("seed", x) for x in (-1, 1.5, 10**400, None, "a", {})]
    + [("cfg", x) for x in (0, 11, "nan", None)]
    + [("rounds", x) for x in (0, 51, 2.5, "many")]
    + [("waypoints", x) for x in (7, ["0,1@2"], {})]
    + [("variations", x) for x in (0, 5, 10**9, float("inf"))],
)
def test_everything_is_bounded_on_the_server(field, value):
    with pytest.raises(BadInput) as error:
        request(**{field: value})
    message = str(error.value)
    assert len(message) < 120 and "\n" not in message and message.endswith(".")
    assert "e+" not in message  # 1000000000, as one types it


def test_the_frame_can_run_its_script_only_and_cannot_be_left():
    page = viewer_frame('<script>"x"</script></iframe><img>')
    assert page.count("<") == page.count(">") == 2 and 'sandbox="allow-scripts"' in page


def test_the_time_line_is_no_slider_to_a_screen_reader():
    """It has no value and takes no keys: the field beside it does."""
    assert 'role="img"' in time_line(60, 20) and "slider" not in time_line(60, 20)


def test_the_page_says_what_the_text_encoder_does_not_read(pipeline):
    """Nothing is cut without a word: letters of another script, and what lies beyond 256 tokens."""

    def warnings(*prompts):
        return list(replace(pipeline, captions=None).warnings(prompts, None))

    assert warnings("walk") == []
    (line,) = warnings("a " * 400, "walk")
    assert "the end is ignored" in line
    (line,) = warnings("一个人向前走", "一")
    assert "English" in line and "and 1 more" in line
    with pytest.raises(BadInput, match="5000 letters, 1000 are the most"):
        request(prompt="x" * 5000)


@pytest.fixture
def backend(pipeline, tmp_path):
    args = app.flags().parse_args(["--time_steps", "3"])
    sampling = app.sampling_config(args, pipeline.spec)
    return Backend(pipeline, sampling, tmp_path, app.sample_flags(vars(args)))


def test_rounds_left_alone_are_those_of_the_sampler_that_the_guidance_allows(released, tmp_path):
    args = app.flags().parse_args([])
    backend = Backend(released, app.sampling_config(args, released.spec), tmp_path, [])
    assert backend.shown_rounds == 7
    asked = [(2.5, 7), (4.5, 7), (2.5, 9), (4.5, 9)]
    drawn = [
        settled(backend._sampling(request(cfg=cfg, rounds=rounds)), released.mardm) for cfg, rounds in asked
    ]
    assert [(one.sampler, one.time_steps) for one in drawn] == [
        ("onestep", 7),
        ("midpoint", 18),
        ("onestep", 9),
        ("midpoint", 9),
    ]


@pytest.mark.parametrize(
    "words, gpu, device",
    [
        ("", False, []),
        ("", True, ["cpu"]),
        ("--device mps", False, ["mps"]),
        ("--device cuda", True, ["cuda"]),
    ],
)
def test_the_command_names_the_device_unless_it_is_the_one_that_sample_takes(monkeypatch, words, gpu, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    found = app.sample_flags(vars(app.flags().parse_args(words.split())))
    assert found == ["--weights", "demo", *(["--device", *device] if device else [])]


def test_a_full_disk_is_a_line_on_the_page():
    gr = pytest.importorskip("gradio")
    with pytest.raises(gr.Error, match="No space left on device"), errors_on_the_page(gr):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(ZeroDivisionError), errors_on_the_page(gr):
        _ = 1 / 0


def test_a_result_is_the_files_of_each_variation_and_one_page(backend, tmp_path):
    result = backend.generate(request(prompt="../../a: walk?", seconds=2))
    assert [file.suffix for file in result.files] == [".npy", ".bvh", ".glb", ".npy", ".bvh", ".glb", ".html"]
    first, second = (np.load(file) for file in result.files[:4:3])
    assert first.shape == (40, 22, 3) and not np.array_equal(first, second)
    assert len(read_bvh(result.files[1])) == 40
    assert len({file.name for file in result.files}) == 7
    assert all(file.parent == result.folder and file.parent.parent == tmp_path for file in result.files)
    video = backend.video(result)
    assert video.parent == result.folder and video.stat().st_size > 5000


def test_a_story_is_one_motion_and_its_command_makes_it_again(backend, demo_weights, tmp_path):
    result = backend.generate(request(prompt="a person walks\na man #3 jumps#48\nsit", seconds=3, rounds=3))
    first, second = map(np.load, result.motions)
    assert first.shape == second.shape == (60 + 48 + 60, 22, 3) and not np.array_equal(first, second)
    assert result.frames == 168 and "168 frames" in result.line
    check_command(result, demo_weights, tmp_path)
    assert backend.video(result).is_file()


def test_waypoints_lead_where_they_say(backend, demo_weights, tmp_path):
    """The miniature weights generate a body that stays in place, so the waypoint is its start."""
    asked = request(waypoints="0,0@2", variations=1, rounds=3, estimate=True)
    result = backend.generate(asked)
    (motion,) = map(np.load, result.motions)
    assert len(motion) == 44 and "waypoints: " in result.line
    said = float(re.search(r"at most ([\d.]+) cm", result.line)[1])
    assert 100 * np.linalg.norm(motion[40, 0, [0, 2]]) == pytest.approx(said, abs=0.06)
    check_command(result, demo_weights, tmp_path)


def test_variations_that_miss_a_waypoint_are_left_out(backend, monkeypatch):
    def every_second(pipeline, text, points, frames, sampling, keys):
        if keys[0]:
            raise BadInput("misses one by 3.0 m")
        return None, np.zeros((44, 22, 3)), routes.Arrival(0.1, 0.0, 0.0, 0.0, 0.0)

    monkeypatch.setattr(routes, "draw_along", every_second)
    result = replace(backend, fix_feet=True).generate(request(waypoints="0,0@2", variations=2, estimate=True))
    assert len(result.motions) == 1 and "1 of 2 motions left out: 'walk', repeat 1" in result.line
    assert "--fix_feet" not in result.command


def test_an_edit_keeps_the_rest_of_the_variation_it_changes(backend, demo_weights, tmp_path):
    result = backend.generate(request(prompt="walk", seconds=3, rounds=3))
    change = check_edit(result, CHANGE | {"which": 2, "sections": "8,24 48,60", "rounds": 3})
    edited = backend.edit(result, change)
    before, kept = np.load(result.motions[1]), np.r_[0:8, 24:48]
    for after in map(np.load, edited.motions):
        assert after.shape == before.shape and np.abs(after - before)[kept].max() < 1e-3
        assert np.abs(after - before)[8:24].max() > 0.01
    assert len(edited.motions) == 2 and "regenerated" in edited.line
    assert np.array_equal(np.load(edited.folder / "source.npy"), before)  # what its command needs is offered
    assert edited.folder / "source.npy" in edited.files and "--source_motion source.npy" in edited.command
    check_command(edited, demo_weights, tmp_path)
    again = backend.edit(edited, check_edit(edited, CHANGE | {"prompt": "sit"}))
    assert np.abs(np.load(again.motions[0]) - np.load(edited.motions[0]))[24:].max() < 1e-3


def test_a_length_in_a_single_prompt_is_said_to_be_words(backend):
    warned = backend.generate(request(prompt="a person walks#60", seconds=2, rounds=3)).warnings
    assert any(line.startswith("#60 is read as words") for line in warned)
    story = backend.generate(request(prompt="walk#60\nsit#40", rounds=3)).warnings
    assert not any("#60" in line for line in story)


def test_an_address_that_is_taken_or_is_none_is_said_before_weights_are_loaded():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for host, port, flag in (
            ("127.0.0.1", taken.getsockname()[1], "--port"),
            ("1.2.3.4", 7860, "--host"),
        ):
            with pytest.raises(BadInput, match=f"cannot open at .*: pass another {flag}$"):
                app.main(["--host", host, "--port", str(port), "--name", "no weights"])


@pytest.mark.parametrize(
    ("field", "value"),
    [("prompt", x) for x in ("", None, "walk\nsit", "x" * 1001)]
    + [("which", x) for x in (0, 3, 1.5, None, "one")]
    + [("sections", x) for x in ("", None, "1" * 201)],
)
def test_edits_are_bounded_on_the_server(backend, field, value):
    result = backend.generate(request(seconds=2, rounds=3))
    with pytest.raises(BadInput, match=r"\.$"):
        check_edit(result, CHANGE | {field: value})
    with pytest.raises(BadInput, match="press Generate"):
        check_edit(None, CHANGE)
    with pytest.raises(BadInput, match="within the motion's 40 frames"):
        backend.edit(result, check_edit(result, CHANGE | {"sections": "8,60"}))


def test_standing_feet_are_held_where_that_is_asked_for(backend, pipeline, tmp_path):
    """The legs differ, the rest of the body does not; the command beside the motion asks for it too."""
    args = app.flags().parse_args(["--fix_feet"])
    firm = Backend(pipeline, backend.sampling, tmp_path, app.sample_flags(vars(args)), args.fix_feet)
    asked = request(variations=1, rounds=3)
    plain, held = (np.load(one.generate(asked).files[0]) for one in (backend, firm))
    assert np.array_equal(plain[:, 12:], held[:, 12:]) and not np.array_equal(plain[:, :12], held[:, :12])
    assert (
        "--fix_feet" in firm.generate(asked).command and "--fix_feet" not in backend.generate(asked).command
    )


def check_command(result, demo_weights, tmp_path):
    """The command beside a motion, run where its files were saved, makes it again."""
    python, script, *words = shlex.split(result.command)
    assert python == "python" and words[:2] == ["--weights", "demo"]
    saved = {file.name: str(file) for file in result.folder.parent.rglob("*") if file.is_file()}
    words = [saved.get(word, word) for word in words]
    where = [
        "--checkpoints_dir",
        str(demo_weights),
        "--output_dir",
        str(tmp_path / "again"),
        "--device",
        "cpu",
    ]
    {"sample.py": sample, "edit.py": edit}[script].main([*words, *where, "--export", "npy"])
    again = sorted((tmp_path / "again/demo_MARDM_Demo").glob("*.npy"))
    assert len(again) == len(result.motions)
    for file, other in zip(again, result.motions):
        assert np.array_equal(np.load(file), np.load(other))


@pytest.mark.parametrize("prompt", ["a person walks", 'it\'s "quoted" & $HOME `ls` #40', "-jump"])
def test_the_command_beside_a_motion_makes_it_again(backend, demo_weights, tmp_path, prompt):
    result = backend.generate(request(prompt=prompt, estimate=True, seed=7, rounds=3))
    check_command(result, demo_weights, tmp_path)


def test_old_results_go_and_say_so(backend, tmp_path, monkeypatch):
    monkeypatch.setattr("utils.app.backend.KEPT_RESULTS", 3)
    results = []
    for seed in range(5):
        results.append(backend.generate(request(seconds=2, variations=1, seed=seed)))
        os.utime(results[-1].folder, (seed, seed))
    assert sorted(tmp_path.iterdir()) == sorted(result.folder for result in results[2:])
    for gone in (results[0], None):
        with pytest.raises(BadInput, match="press Generate"):
            backend.video(gone)


def test_released_weights_are_offered_where_they_are(tmp_path):
    def offered(*flags):
        values = vars(app.flags().parse_args(["--checkpoints_dir", str(tmp_path), *flags]))
        return {name: app.sample_flags(one)[:2] for name, one in app.offered(values).items()}

    assert list(offered()) == ["demo"]  # none is there: the error names it
    (tmp_path / "Demo/demo_MARDM").mkdir(parents=True)
    assert list(offered()) == list(offered("--weights", "demo")) == ["demo"]
    (tmp_path / "CMU/cmu_MARDM").mkdir(parents=True)
    assert list(offered()) == ["demo", "cmu"]
    assert offered("--weights", "cmu") == {"cmu": ["--weights", "cmu"], "demo": ["--weights", "demo"]}
    assert offered("--name", "mine") == {"mine": ["--name", "mine"]}


@contextlib.contextmanager
def serving(demo_weights, home):
    """app.py as its users start it, in a home of its own -> (port, its process)."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = ["--port", str(port), "--checkpoints_dir", str(demo_weights), "--time_steps", "3"]
    environment = os.environ | {"HOME": str(home), "TMPDIR": str(home), "PYTHONPATH": str(ROOT)}
    environment |= {"MPLCONFIGDIR": str(home.parent / "mpl"), "PYTHONDONTWRITEBYTECODE": "1"}
    work = home / "work"
    work.mkdir()
    server = subprocess.Popen(
        [sys.executable, str(ROOT / "app.py"), *flags],
        cwd=work,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        seen = b""
        while b"open http" not in seen:
            line = server.stdout.readline()
            assert line, f"the page did not open: {seen.decode()}"
            seen += line
        yield port, server
    finally:
        server.terminate()
        rest = server.communicate(timeout=60)[0].decode()
    assert "Traceback" not in rest, rest
    assert written(home) == [], "the folder of the page outlives it"


@pytest.fixture(scope="module")
def address(demo_weights, tmp_path_factory):
    """-> (port, everything it may write to)"""
    home = tmp_path_factory.mktemp("app_home")
    with serving(demo_weights, home) as (port, _):
        yield port, home


def written(home):
    return [path for path in home.rglob("*") if path.is_file()]


def post(port, path, body):
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    link.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    answer = link.getresponse()
    return answer.status, answer.read().decode()


def call(port, *values, waypoints="", weights="demo", name="generate"):
    """Call the page's API as a program does -> (event, its data)."""
    values = [*values, waypoints, weights] if name == "generate" else values
    status, body = post(port, f"/gradio_api/call/{name}", {"data": values})
    if status != 200:
        return "refused", body
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    link.request("GET", f"/gradio_api/call/{name}/{json.loads(body)['event_id']}")
    event, data = re.findall(r"event: (\w+)\ndata: (.*)\n", link.getresponse().read().decode())[-1]
    return event, json.loads(data)


@pytest.mark.skipif(not os.path.exists("/proc/net/tcp"), reason="no /proc here")
def test_it_listens_to_this_computer_only(address):
    with open("/proc/net/tcp") as file:
        rows = [line.split() for line in file][1:]
    listening = [row[1].split(":") for row in rows if row[3] == "0A"]
    assert [host for host, port in listening if int(port, 16) == address[0]] == ["0100007F"]  # 127.0.0.1


def test_a_program_gets_files_or_one_clear_line(address):
    port, home = address
    event, data = call(port, "walk", False, 2, 1, 2.5, 3, 1)
    assert event == "complete" and data[0].startswith("<iframe") and "--seed 1" in data[3]
    assert {os.path.splitext(file["path"])[1] for file in data[1]} == {".npy", ".bvh", ".glb", ".html"}
    for values in (
        ["walk", False, 10**9, 1, 2.5, 3, 1],
        ["", True, 4, 1, 2.5, 3, 1],
        ["walk " * 1000, True, 4, 1, 2.5, 3, 1],
        [None] * 7,
        ["walk", True, 4, "x", [], {}, 1],
    ):
        event, data = call(port, *values)
        assert event == "error" and data["error"].endswith("."), (values, data)
    for waypoints in ("0,9@2", 7, [], "x" * 10**5):
        assert call(port, "walk", False, 4, 1, 2.5, 3, 1, waypoints=waypoints)[0] == "error", waypoints
    for weights in ("cmu", "../x", None, [], {"demo": 1}):  # cmu is not there
        assert call(port, "walk", False, 4, 1, 2.5, 3, 1, weights=weights)[0] == "error", weights
    for values in (["wave", "8,24", 1, 1, 2.5, 3, 1], [None] * 7, [[], {}, "x", [], {}, 1, "y"]):
        event, data = call(port, *values, name="change")
        assert event == "error" and "\n" not in str(data), (values, data)
    assert all("fsq_mardm_app_" in str(path) for path in written(home)), written(home)


def test_nothing_can_be_uploaded(address):
    port, home = address
    before = written(home)
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    part = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="../../evil.txt"\r\n\r\n'
        + b"y" * 1000
    )
    link.request(
        "POST",
        "/gradio_api/upload",
        part + b"\r\n--x--\r\n",
        {"Content-Type": "multipart/form-data; boundary=x"},
    )
    assert link.getresponse().status >= 400
    assert written(home) == before


def picture(browser, selector):
    """The pixels of an element as the screen shows it [H,W,3]."""
    box = browser.js(
        f"(r => [r.x, r.y, r.width, r.height])(document.querySelector('{selector}').getBoundingClientRect())"
    )
    shot = imread(io.BytesIO(base64.b64decode(browser.call("Page.captureScreenshot")["data"])))[..., :3]
    x, y, width, height = map(int, box)
    return shot[max(y, 0) : y + height, max(x, 0) : x + width]


def coloured(picture, colour):
    return int((np.abs(picture - np.array(colour) / 255).max(axis=-1) < 0.1).sum())


def type_into(browser, selector, text):
    browser.js(f"(e => (e.focus(), e.select()))(document.querySelector('{selector}'))")
    browser.call("Input.insertText", text=text)


def press(browser, name):
    button = f"[...document.querySelectorAll('button')].find(b => b.textContent.trim().startsWith('{name}'))"
    browser.wait(f"{button} !== undefined", seconds=120)
    browser.js(f"{button}.click()")


def type_and_generate(browser, text, selector="textarea", button="Generate"):
    before = browser.js("document.querySelector('#viewer iframe')?.srcdoc ?? ''")
    type_into(browser, selector, text)
    press(browser, button)
    quoted = json.dumps(before)
    browser.wait(f"(document.querySelector('#viewer iframe')?.srcdoc ?? '') !== {quoted}", seconds=120)
    box = "document.querySelector('#viewer iframe').getBoundingClientRect()"
    browser.wait(f"(r => r.bottom > 200 && r.top < innerHeight - 200)({box})")  # the page scrolls to it


@contextlib.contextmanager
def visiting(port, profile, width=1280):
    browser = Browser(profile)
    try:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "light"}
        browser.call("Emulation.setEmulatedMedia", features=[scheme])
        browser.call("Page.navigate", url=f"http://127.0.0.1:{port}")
        browser.wait("document.querySelector('textarea') !== null", seconds=120)
        yield browser
    finally:
        browser.close()


@needs_browser
def test_a_visit(address, tmp_path):
    """Type, press, see it move; captions stay text; nothing is fetched from elsewhere."""
    port, _ = address
    with visiting(port, tmp_path / "profile") as browser:
        type_and_generate(browser, "a person walks forward")
        deadline = time.monotonic() + 60
        while coloured(picture(browser, "#viewer iframe"), BLUE) < 50:
            assert time.monotonic() < deadline, "nothing is drawn"
        frames = []
        while len(frames) < 40 and not (frames and np.abs(frames[0] - frames[-1]).max() > 0.3):
            frames.append(picture(browser, "#viewer iframe"))
        assert np.abs(frames[0] - frames[-1]).max() > 0.3, "it does not move"
        assert coloured(frames[-1], ORANGE) > 50

        title = browser.js("document.title")
        type_and_generate(browser, HOSTILE)
        assert (
            browser.js("document.title") == title
            and browser.js("document.querySelector('img[src=x]')") is None
        )
        assert "&lt;/title" in browser.js("document.querySelector('#viewer iframe').srcdoc")

        asked = [
            e["params"]["request"]["url"]
            for e in browser.events
            if e.get("method") == "Network.requestWillBeSent"
        ]
        own = (f"http://127.0.0.1:{port}/", "data:", "blob:", "about:")
        assert asked and [url for url in asked if not url.startswith(own)] == []


def drag(browser, selector, *places):
    """Press at the first of some places of an element, up at the last; shares of its width and height."""
    element = f"document.querySelector('{selector}')"
    browser.wait(f"{element}?.getBoundingClientRect().width > 0")
    box, before = f"(r => [r.x, r.y, r.width, r.height])({element}.getBoundingClientRect())", None
    while (now := browser.js(box)) != before:  # what opens or scrolls moves it
        browser.js(f"{element}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        before = now
        time.sleep(0.5)
    x, y, width, height = now
    points = [{"x": x + width * across, "y": y + height * down} for across, down in places]
    kinds = ["mousePressed", *["mouseMoved"] * (len(points) - 1), "mouseReleased"]
    for kind, at in zip(kinds, [*points, points[-1]]):
        browser.call("Input.dispatchMouseEvent", type=kind, **at, button="left", buttons=1, clickCount=1)


def value(browser, name):
    return browser.js(f"document.querySelector('#{name} textarea, #{name} input').value")


def files_of(browser):
    return browser.js("[...document.querySelectorAll('a[download]')].map(a => a.getAttribute('download'))")


@needs_browser
@pytest.mark.parametrize("width", [1280, 400])
def test_a_way_a_change_and_a_story(tmp_path, width):
    """With the demo weights: clicks lead, a drag over the time line selects, lines follow each other."""
    home = tmp_path / "home"
    home.mkdir()
    with serving(ROOT / "checkpoints", home) as (port, _), visiting(port, tmp_path / "p", width) as browser:
        press(browser, "Where the person goes")
        drag(browser, "#floor svg", (0.5, 0.25))  # the floor has 6 metres, the person stands in its middle
        drag(browser, "#floor svg", (0.35, 0.2))
        first, second = parse_waypoints(value(browser, "waypoints"), SPEC.fps)
        for point, place in ((first, (0, 1.5)), (second, (0.9, 1.8))):
            assert (point.x, point.z) == pytest.approx(place, abs=0.2)
        assert browser.js("document.querySelectorAll('#floor circle').length") == 2
        type_and_generate(browser, "a person walks forward")
        browser.wait("document.body.textContent.includes('cm off as drawn')")

        press(browser, "Change a part of it")
        drag(browser, "#timeline [data-frames]", (0.3, 0.5), (0.5, 0.5), (0.6, 0.5))
        frames = int(browser.js("document.querySelector('#timeline [data-frames]').dataset.frames"))
        assert value(browser, "stretch") == f"{round(0.3 * frames)},{round(0.6 * frames)}"
        mark = "(s => s.left + ' ' + s.width)(document.querySelector('#timeline i').style)"
        for text, at in ((value(browser, "stretch"), browser.js(mark)), ("0.4,0.6", "40% 20%")):
            type_into(browser, "#stretch textarea, #stretch input", text)
            browser.wait(f"{mark} === {at!r}")
        part = "#change textarea, #change input"
        type_and_generate(browser, "someone waves with the right hand", part, "Regenerate this section")
        browser.wait("document.body.textContent.includes('regenerated')")
        assert f"-msec {value(browser, 'stretch')}" in value(browser, "command")
        assert "right hand" in browser.js("document.querySelector('#viewer iframe').srcdoc")

        press(browser, "clear")
        assert value(browser, "waypoints") == ""
        type_and_generate(browser, "a person walks forward\nsomeone sits down")
        press(browser, "Make mp4")
        browser.wait("document.querySelector('a[download$=\".mp4\"]') !== null", 60)
        endings = {name.rsplit(".", 1)[-1] for name in files_of(browser)}
        assert endings == {"npy", "bvh", "glb", "html", "txt", "mp4"}
        longer = int(browser.js("document.querySelector('#timeline [data-frames]').dataset.frames"))
        assert longer > 80 and browser.js("document.documentElement.scrollWidth") <= width
