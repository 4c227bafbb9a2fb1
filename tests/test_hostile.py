"""Whatever comes in: success, or exit 2 with one line. The cases are made in tests/fuzz, by the hundred.

The default run takes a sample of every kind, the slow one all of them, thirty as processes of their own.
"""

import ast
import re

import pytest

from tests.conftest import ROOT
from tests.fuzz.__main__ import all_cases, attempts, sample, thirty
from tests.fuzz.contract import attempt_as_process
from tests.fuzz.flags import flags_of, numeric_flags, parser_of, scripts
from tests.fuzz.home import build

CASES = all_cases()
SOURCES = [
    file
    for pattern in ("*.py", "*/*.py", "*/*/*.py")
    for file in sorted(ROOT.glob(pattern))
    if "tests" not in file.parts and not file.parent.name.startswith(".")
]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("hostile")
    return build(home)


def broken(outcomes):
    return [str(outcome) for outcome in outcomes if outcome.problems]


def state_of(home):
    return {path: path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file()}


def test_there_are_enough_cases_and_each_has_a_name():
    names = [str(case) for case in CASES]
    assert len(set(names)) == len(names) >= 300
    assert len(list(sample(CASES))) > 200


def test_a_sample_of_all_kinds(home, tmp_path):
    before = state_of(home)
    assert broken(attempts(sample(CASES), home, tmp_path)) == []
    assert state_of(home) == before, "a case has changed what the others start from"


@pytest.mark.slow
@pytest.mark.parametrize("kind", dict.fromkeys(case.kind for case in CASES))
def test_all_of_a_kind(home, tmp_path, kind):
    assert broken(attempts([case for case in CASES if case.kind == kind], home, tmp_path)) == []


@pytest.mark.slow
def test_thirty_as_processes(home, tmp_path):
    chosen = thirty(CASES)
    assert len(chosen) == 30
    assert broken(attempts(chosen, home, tmp_path, attempt_as_process)) == []


def test_every_number_has_bounds():
    """No flag takes any int or float there is; what is out of bounds is told with the bounds."""
    for script in scripts():
        bare = [option for _, option, action in flags_of(parser_of(script)) if action.type in (int, float)]
        assert not bare, f"{script}: {', '.join(bare)} of {script} have no bounds"
    assert sum(len(numeric_flags(script)) for script in scripts()) > 100


# ---- what loads data, in the source ----

NEVER = {"eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads", "joblib.load", "yaml.load"}
NEVER |= {"marshal.loads", "shelve.open", "np.fromfile", "torch.hub.load", "compile", "__import__"}


def calls(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_that_is_loaded_may_run(file):
    for node, name, keywords in calls(file):
        where = f"{file.relative_to(ROOT)}:{node.lineno}: {name}"
        assert name not in NEVER, where
        if name == "torch.load":
            assert keywords.get("weights_only") == "True", f"{where} without weights_only=True"
        if name in ("np.load", "numpy.load"):  # NumPy's default is False
            unsaid = None if file.parent.name in ("benchmarks", "experiments") else "False"
            assert keywords.get("allow_pickle") in ("False", unsaid), f"{where} without allow_pickle=False"
        if name.startswith("subprocess."):
            assert "shell" not in keywords, f"{where} through a shell"
        assert "trust_remote_code" not in keywords, where


def test_unpicklers_allow_no_class():
    """The one pickle.Unpickler of the project refuses every class that a file asks for."""
    found = [
        (file, node)
        for file in SOURCES
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and any("Unpickler" in ast.unparse(base) for base in node.bases)
    ]
    assert [(file.name, node.name) for file, node in found] == [("glove.py", "_PlainUnpickler")]
    (method,) = [item for item in found[0][1].body if isinstance(item, ast.FunctionDef)]
    assert method.name == "find_class" and isinstance(method.body[0], ast.Raise)


@pytest.mark.parametrize("file", sorted(ROOT.rglob("*.sh")), ids=lambda file: file.name)
def test_shell_scripts_build_no_command_from_text(file):
    if ".venv" in file.parts:
        return
    text = re.sub(r"(^|\s)#.*", "", file.read_text(encoding="utf-8"))
    assert not re.search(r"(^|[;&|]\s*)\s*eval\s|\b(ba)?sh -c\b|`", text, re.M)
