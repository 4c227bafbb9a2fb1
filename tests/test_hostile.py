"""Whatever comes in: success, or exit 2 with one line. The cases are made in tests/fuzz, by the hundred.

The default run takes a sample of every kind, the slow one all of them.
"""

import argparse
import ast
import importlib
import math
import re
import shutil

import pytest

from tests.conftest import ROOT
from tests.fuzz import cases
from tests.fuzz.contract import Case, attempt
from tests.fuzz.home import COMMANDS, build

CASES = list(cases.cases())
KINDS = {
    kind: [case for case in CASES if case.kind == kind] for kind in sorted({case.kind for case in CASES})
}
FILES = [file for pattern in ("*.py", "*/*.py", "*/*/*.py") for file in sorted(ROOT.glob(pattern))]
SOURCES = [file for file in FILES if "tests" not in file.parts and not file.parent.name.startswith(".")]


@pytest.fixture(scope="module")
def home(world, tmp_path_factory):
    return build(world, tmp_path_factory.mktemp("hostile") / "home")


def check(chosen, home, scratch):
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file()}
    failed = {}
    for number, case in enumerate(chosen):
        problems = attempt(case, home, scratch / str(number))
        if problems:
            failed[str(case)] = problems
        shutil.rmtree(scratch / str(number))
    assert failed == {}
    after = {path: path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file()}
    assert after == before, "a case has changed what the others start from"


def test_a_sample_of_all_kinds(home, tmp_path):
    check(
        [case for some in KINDS.values() for case in some[:: max(1, min(40, len(some) // 3))]], home, tmp_path
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_all_of_a_kind(home, tmp_path, kind):
    check(KINDS[kind], home, tmp_path)


# ---- numeric flags ----

VALUES = ("0", "-1", "nan", "inf", "-inf", "1e9", "1000000000", "text", "", "1" + "0" * 400, "0x10")


def parser_of(script, monkeypatch):
    """The parser that a script builds."""
    kept = []

    def keep(parser, *_):
        kept.append(parser)
        raise KeyboardInterrupt  # out of the script

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(argparse.ArgumentParser, "parse_args", keep)
        importlib.import_module(script).main([])
    return kept[0]


def flags_of(parser, command):
    """(command, parser, action) of every flag with a type, subcommands included."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                yield from flags_of(sub, f"{command} {name}")
        elif action.type is not None and action.option_strings:
            yield command, parser, action


def is_legal(kind, text):
    try:
        kind(text)
    except argparse.ArgumentTypeError:
        return False
    return True


@pytest.mark.parametrize(
    "script", sorted({file.stem for file in ROOT.glob("*.py")} | {"experiments.prompt_check"})
)
def test_numbers_have_bounds_and_beyond_them_are_refused(script, monkeypatch, capsys):
    refused = 0
    for _, parser, action in flags_of(parser_of(script, monkeypatch), script):
        option, kind = action.option_strings[-1], action.type
        assert kind not in (int, float), f"{option} has no bounds"
        if not hasattr(kind, "low"):
            continue
        step = 1 if kind.kind is int else 0.001
        beyond = [f"{x:.15g}" for x in (kind.low - step, kind.high + step) if math.isfinite(x)]
        for text in [*VALUES, *beyond]:
            if not is_legal(kind, text):
                with pytest.raises(SystemExit) as left:
                    parser.parse_args([f"{option}={text}"])
                error = capsys.readouterr().err
                assert left.value.code == 2 and re.fullmatch(f"error: .*{option}.*\n", error), (option, text)
                refused += 1
    assert refused or script == "analyze_evaluations"  # which takes no numbers


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_extremes_that_are_legal(home, tmp_path, command, monkeypatch):
    script = command.split()[0]
    flags = flags_of(parser_of(script, monkeypatch), script)
    chosen = [
        Case(
            "legal flags",
            f"{option}={text}",
            script,
            tuple(f"{command} {COMMANDS[command]}".split()[1:] + [f"{option}={text}"]),
        )
        for name, _, action in flags
        if name == command and hasattr(action.type, "low") and not action.nargs
        for option in action.option_strings[-1:]
        for text in VALUES
        if is_legal(action.type, text)
    ]
    if not chosen:
        pytest.skip("it takes no number")
    check(chosen, home, tmp_path)


# ---- what loads data, in the source ----

NEVER = {"eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads", "joblib.load", "yaml.load"}
NEVER |= {"marshal.loads", "shelve.open", "np.fromfile", "torch.hub.load", "compile", "__import__"}


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_that_is_loaded_may_run(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef) and any("Unpickler" in ast.unparse(base) for base in node.bases):
            (method,) = [item for item in node.body if isinstance(item, ast.FunctionDef)]
            assert method.name == "find_class" and isinstance(method.body[0], ast.Raise), "allows a class"
        if not isinstance(node, ast.Call):
            continue
        name, keywords = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
        where = f"{file.relative_to(ROOT)}:{node.lineno}: {name}"
        assert name not in NEVER, where
        if name == "torch.load":
            assert keywords.get("weights_only") == "True", f"{where} without weights_only=True"
        if name in ("np.load", "numpy.load"):  # NumPy's default is False
            unsaid = None if set(file.parts) & {"benchmarks", "experiments"} else "False"
            assert keywords.get("allow_pickle") in ("False", unsaid), f"{where} without allow_pickle=False"
        assert "shell" not in keywords or not name.startswith("subprocess."), f"{where} through a shell"
        assert "trust_remote_code" not in keywords, where


def test_shell_scripts_build_no_command_from_text():
    for file in [*ROOT.glob("*.sh"), *ROOT.glob("*/*.sh"), *ROOT.glob("*/*/*.sh")]:
        text = re.sub(r"(^|\s)#.*", "", file.read_text(encoding="utf-8"))
        assert not re.search(r"(^|[;&|]\s*)\s*eval\s|\b(ba)?sh -c\b|`", text, re.M), file
