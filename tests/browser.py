"""A headless Chromium for tests, spoken to over a pair of pipes."""

import base64
import io
import json
import os
import select
import shutil
import subprocess
import time

import pytest
from matplotlib.image import imread

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium here (Debian: apt install chromium)")
CANVAS = "document.querySelectorAll('canvas')[{}].toDataURL()"
WEBGL = ("--enable-unsafe-swiftshader", "--use-angle=swiftshader")  # drawn by the processor


class Browser:
    """One page of a browser. Messages both ways are JSON and end in a zero byte. more: flags, e.g. WEBGL."""

    def __init__(self, profile, *more):
        to_browser, self.send_fd = os.pipe()
        self.read_fd, from_browser = os.pipe()
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
        flags += ["--window-size=900,640", "--disable-dev-shm-usage", "--no-first-run"]
        flags += [f"--user-data-dir={profile}", *(more or ["--disable-3d-apis"])]
        # The protocol wants the pipes as descriptors 3 and 4.
        shell = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
        self.process = subprocess.Popen(
            ["bash", "-c", shell, BROWSER, *flags, "about:blank"],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self.buffer, self.count, self.events, self.session = b"", 0, [], None
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.send_fd, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.count:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def receive(self, seconds=30):
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.read_fd], [], [], seconds)
            chunk = os.read(self.read_fd, 1 << 20) if ready else b""
            if not chunk:
                raise TimeoutError("the browser does not answer")
            self.buffer += chunk
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def open(self, path):
        self.events.clear()
        scheme = {"name": "prefers-color-scheme", "value": "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.wait("document.readyState === 'complete' && document.querySelectorAll('canvas').length > 0")
        self.settle()

    def js(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, condition, seconds=20):
        deadline = time.monotonic() + seconds
        while not self.js(condition):
            assert time.monotonic() < deadline, f"never became true: {condition}"
            time.sleep(0.02)

    def settle(self):
        """Wait for two frames, after which all that was asked for is drawn."""
        self.js("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def scrub(self, frame):
        slider = "document.getElementById('time')"  # in one call: a playing viewer moves it in between
        self.js(f"{slider}.value = {frame}, {slider}.dispatchEvent(new Event('input'))")
        self.settle()

    def key(self, key, text=None, **more):
        more |= {"text": text} if text else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)
        self.settle()

    def drag(self, dx, dy):
        """From the middle of the first canvas -> that middle."""
        x, y, width, height = self.js(
            "(r => [r.x, r.y, r.width, r.height])(document.querySelector('canvas').getBoundingClientRect())"
        )
        middle = {"x": x + width / 2, "y": y + height / 2}
        mouse = {"button": "left", "buttons": 1, "clickCount": 1}
        end = {"x": middle["x"] + dx, "y": middle["y"] + dy}
        for kind, at in (("mousePressed", middle), ("mouseMoved", end), ("mouseReleased", end)):
            self.call("Input.dispatchMouseEvent", type=kind, **at, **mouse)
        self.settle()
        return middle

    def canvas(self, panel=0):
        """-> RGBA in [0,1], [H,W,4]."""
        return imread(io.BytesIO(base64.b64decode(self.js(CANVAS.format(panel)).split(",")[1])))

    def errors(self):
        """Console errors, exceptions and requests to anywhere but the page itself."""
        found = []
        for event in self.events:
            method, params = event.get("method"), event.get("params", {})
            level = params.get("type") if method == "Runtime.consoleAPICalled" else None
            level = params["entry"]["level"] if method == "Log.entryAdded" else level
            url = params["request"]["url"] if method == "Network.requestWillBeSent" else "data:"
            if "GPU stall" in str(params):  # reading pixels back is slow; only tests do it
                continue
            thrown = method == "Runtime.exceptionThrown"
            if thrown or level in ("error", "warning", "assert") or not url.startswith(("file:", "data:")):
                found.append(event)
        return found

    def close(self):
        self.session = None
        self.call("Browser.close")
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:  # a busy machine; what was to be seen has been seen
            self.process.kill()
            self.process.wait()
        os.close(self.send_fd)
        os.close(self.read_fd)
