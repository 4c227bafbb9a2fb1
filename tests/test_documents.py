"""The examples of the documents run as they stand."""

import importlib
import os
import re
import shlex
import shutil
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlparse

import numpy as np
import pytest

from motion.bvh import read_bvh
from motion.export import Motion
from motion.skeletons import SMPL22
from tests.test_setup import parse

ROOT = Path(__file__).resolve().parent.parent


DOCUMENTS = [
    "README.md",
    "README.zh-CN.md",
    *(f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md"))),
]
DOCUMENTS += ["results/README.md", "benchmarks/README.md", "datasets/README.md", "checkpoints/Demo/README.md"]
DOCUMENTS += ["checkpoints/CMU/README.md"]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_document_says_to_type_is_accepted_and_what_it_links_is_there(document):
    """Python commands in bash blocks, and experiments' commands in a sentence, are parsed by their programs;
    every file linked or called exists.
    """
    text = (ROOT / document).read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    for line in blocks.splitlines():
        if line.startswith("python ") and not line.startswith(("python -c", "python -m")):
            _, script, *arguments = shlex.split(line, comments=True)
            parse(script, arguments)
    for line in re.findall(r"`python -m (experiments\.[^`]+)`", text):
        module, *arguments = shlex.split(line)
        if hasattr(importlib.import_module(module), "flags"):
            parse(module, arguments)
    links = [(ROOT / document).parent / link for link in re.findall(r"\]\(([\w./-]+)\)", text)]
    called = [ROOT / name for name in re.findall(r"^bash (\S+)", blocks, re.MULTILINE)]
    assert [str(path) for path in links + called if not path.exists()] == []


def test_the_python_examples_run(tmp_path, monkeypatch):
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
    names = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert len(blocks) >= 4
    assert names["walk"].joints.shape == (80, 22, 3) and names["walk"].features.shape == (80, 67)
    assert abs(names["again"].joints - names["walk"].joints).max() < 0.01
    assert names["features"].shape == (79, 263) and names["joints"].shape == (79, 22, 3)
    assert names["positions"].shape[0] == 80
    assert abs(names["ordered"] - names["walk"].joints).max() < 0.1
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "animators.md").read_text(), re.DOTALL)
    exec(compile(textwrap.dedent(block), "docs/animators.md", "exec"), {})
    assert len(read_bvh("60.bvh")) == 3 * 79 + 1 and read_bvh("60.bvh").fps == 60


def test_a_motion_plays_in_a_notebook_and_in_the_browser(monkeypatch):
    motion = Motion(np.zeros((4, 22, 3), np.float32), "</iframe><script>", 20.0, SMPL22)
    assert motion._repr_html_().count("</iframe>") == 1
    opened, shown = [], []
    monkeypatch.setattr("webbrowser.open", opened.append)
    display = SimpleNamespace(display=shown.append)
    for shell in (None, SimpleNamespace(), SimpleNamespace(kernel="")):  # Python, IPython, a notebook
        ipython = SimpleNamespace(get_ipython=lambda shell=shell: shell, display=display)
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        motion.show()
    assert shown == [motion] and len(opened) == 2
    for page in (Path(urlparse(url).path) for url in opened):
        assert page.read_text().startswith("<!doctype html>")
        shutil.rmtree(page.parent)


def test_a_motion_is_saved_as_its_suffix_says(tmp_path):
    motion = Motion(np.zeros((4, 22, 3), np.float32), "a person stands", 20.0, SMPL22, np.zeros((4, 67)))
    assert np.load(motion.save(tmp_path / "stand.features.npy")).shape == (4, 67)
    assert np.load(motion.save(tmp_path / "stand.npy")).shape == (4, 22, 3)
    with pytest.raises(ValueError, match="end the name in one of .npy"):
        motion.save(tmp_path / "stand.fbx")
    with pytest.raises(ValueError, match="none were given"):
        Motion(motion.joints, "", 20.0, SMPL22).save(tmp_path / "bare.features.npy")
    assert not (tmp_path / "bare.features.npy").exists()


@pytest.mark.slow
def test_the_notebook_runs_top_to_bottom(tmp_path):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    for path in ROOT.iterdir():
        if path.name not in ("editing", "generation") and not path.name.startswith("."):
            (tmp_path / path.name).symlink_to(path)
    notebook = nbformat.read(ROOT / "demo.ipynb", as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env=os.environ | {"PATH": os.defpath})  # a kernel whose environment is not activated
    output = str([cell.get("outputs") for cell in notebook.cells])
    assert "<iframe" in output and "is unlike anything" in output and "jump.glb" in output
    assert list((tmp_path / "editing").rglob("*.npy"))
