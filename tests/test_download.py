"""scripts/download.sh against a server on this machine that behaves as the hosts do: no network is used."""

import hashlib
import http.server
import io
import os
import subprocess
import threading
import zipfile

import pytest

from tests.conftest import ROOT

SCRIPT = ROOT / "scripts/download.sh"


def archive(**files):
    """A zip archive in memory; '__' in a name stands for '/'."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        for name, content in files.items():
            zipped.writestr(name.replace("__", "/"), content)
    return buffer.getvalue()


class Host(http.server.BaseHTTPRequestHandler):
    """Serves `files`, path -> bytes, continues where asked to, and announces size and sum as the hub does."""

    def do_HEAD(self):
        body = self.server.files.get(self.path.partition("?")[0])
        self.send_response(302 if body else 404)
        if body:
            self.send_header("X-Linked-Size", str(len(body)))
            self.send_header("X-Linked-Etag", f'"{self.server.sums.get(self.path, sha256(body))}"')
        self.end_headers()

    def do_GET(self):
        body = self.server.files.get(self.path.partition("?")[0])
        start = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-")
        self.server.starts.append(int(start))
        if body is None:
            self.send_error(404)
            return
        self.send_response(206 if int(start) else 200)
        if int(start):
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        rest = body[int(start) :]
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest)

    def log_message(self, *_):
        pass


def sha256(body):
    return hashlib.sha256(body).hexdigest()


@pytest.fixture
def host():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Host)
    server.files, server.sums, server.starts = {}, {}, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def download(host, root, *arguments):
    hub, drive = (f"http://{name}:{host.server_port}" for name in ("127.0.0.1", "localhost"))
    local = {"FSQ_MARDM_HUB": hub, "FSQ_MARDM_DRIVE": drive, "no_proxy": "127.0.0.1,localhost"}
    env = os.environ | local
    command = ["bash", str(SCRIPT), "--root", str(root), *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


AE = "/cr8br0ze/AE_humanml3d/resolve/main/AE_humanml3d.zip"


def test_an_archive_is_unpacked_where_the_scripts_look(host, tmp_path):
    body = host.files[AE] = archive(**{"AE__model__latest.tar": "weights"})
    done = download(host, tmp_path, "ae")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "checkpoints/t2m/AE/model/latest.tar").read_text() == "weights"
    assert (tmp_path / "checkpoints/downloads.sha256").read_text() == f"{sha256(body)}  AE_humanml3d.zip\n"
    assert not any((tmp_path / "checkpoints/.downloads").iterdir())
    host.files.clear()
    again = download(host, tmp_path, "ae")  # what is there is left alone
    assert again.returncode == 0 and "is there" in again.stdout


def test_an_interrupted_download_goes_on_where_it_stopped(host, tmp_path):
    body = host.files[AE] = archive(**{"AE__model__latest.tar": os.urandom(5000)})
    store = tmp_path / "checkpoints/.downloads"
    store.mkdir(parents=True)
    (store / "AE_humanml3d.zip.part").write_bytes(body[:2000])
    assert download(host, tmp_path, "ae").returncode == 0
    assert host.starts == [2000]
    assert (tmp_path / "checkpoints/t2m/AE/model/latest.tar").stat().st_size == 5000


def test_what_is_not_what_the_host_announced_is_refused(host, tmp_path):
    host.files[AE] = archive(**{"AE__model__latest.tar": "other"})
    host.sums[AE] = "0" * 64
    done = download(host, tmp_path, "ae")
    assert done.returncode == 1 and "damaged" in done.stderr
    assert not (tmp_path / "checkpoints/t2m/AE").exists()
    assert not any((tmp_path / "checkpoints/.downloads").iterdir())


def test_a_quota_page_is_recognised_and_the_way_by_hand_works(host, tmp_path):
    host.files["/download"] = b"<!DOCTYPE html><title>Quota exceeded</title>"
    done = download(host, tmp_path, "glove")
    assert done.returncode == 1 and "quota" in done.stderr and "browser" in done.stderr
    by_hand = tmp_path / "checkpoints/.downloads/glove.zip"
    assert str(by_hand) in done.stderr
    by_hand.write_bytes(archive(**{"glove__our_vab_data.npy": "vectors"}))
    assert download(host, tmp_path, "glove").returncode == 0
    assert (tmp_path / "glove/our_vab_data.npy").read_text() == "vectors"


def test_a_file_that_changed_since_its_first_download_is_named(host, tmp_path):
    host.files[AE] = archive(**{"AE__model__latest.tar": "first"})
    assert download(host, tmp_path, "ae").returncode == 0
    (tmp_path / "checkpoints/t2m/AE/model/latest.tar").unlink()
    host.files[AE] = archive(**{"AE__model__latest.tar": "second"})
    done = download(host, tmp_path, "ae")
    assert done.returncode == 1 and "came first" in done.stderr
    assert not (tmp_path / "checkpoints/t2m/AE/model/latest.tar").exists()
