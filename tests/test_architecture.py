"""The shape of the code: who may import whom, where names become modules, how scripts open and close, what
functions may ask for."""

import ast
from functools import cache
from graphlib import TopologicalSorter

import pytest

from tests.conftest import ROOT

# Imports go one way: scripts -> utils -> models -> diffusions, and scripts, utils -> motion.
BELOW = {"utils", "models", "motion"}
MAY_IMPORT = {
    "diffusions": {"diffusions"},
    "motion": {"motion"},
    "models": {"models", "diffusions"},
    "utils": BELOW,
    "scripts": BELOW,  # and the programs in the root
    "experiments": BELOW | {"experiments", "benchmarks", "diffusions"},
    "benchmarks": BELOW | {"benchmarks", "diffusions"},
}
PROGRAMS = {
    "benchmarks": {"train_AE", "train_MARDM"},
    "experiments": {"analyze_training"},
}  # what they measure
FLAGS = ("utils/cli.py", "utils/config.py", "utils/flags.py")  # where flags become values
SCRIPTS = sorted(ROOT.glob("*.py"))
MODULES = sorted(file for package in MAY_IMPORT for file in (ROOT / package).rglob("*.py"))
LINES = {"modules": 300, "scripts": 200}  # that are not blank


@cache
def tree(file):
    return ast.parse(file.read_text(encoding="utf-8"))


def imports(file):
    """All that a file imports, also inside its functions, by full name (`from utils import x`: utils.x)."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are written from the root"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if (ROOT / full.replace(".", "/")).with_suffix(".py").is_file() else node.module


def room(file):
    """The package a file belongs to; the programs in the root are scripts."""
    return "scripts" if file.parent == ROOT else file.relative_to(ROOT).parts[0]


def label(file):
    return str(file.relative_to(ROOT))


every_file = pytest.mark.parametrize("file", SCRIPTS + MODULES, ids=label)


@every_file
def test_imports_go_one_way(file):
    programs = {script.stem for script in SCRIPTS} - PROGRAMS.get(room(file), set())
    for name in imports(file):
        package = name.split(".")[0]
        assert package not in programs, f"{label(file)} imports the script {package}"
        if package in MAY_IMPORT:
            assert package in MAY_IMPORT[room(file)], f"{label(file)} must not import {name}"
    text = file.read_text(encoding="utf-8")
    assert "sys.path" not in text and "noqa: E402" not in text, "run it as a module, from the root"


def test_no_module_needs_itself():
    ours = {label(file)[:-3].replace("/", "."): file for file in MODULES}
    needs = {name: {n for n in imports(file) if n in ours} for name, file in ours.items()}
    assert list(TopologicalSorter(needs).static_order())  # raises CycleError and names the circle


def functions(file):
    """(its place as in the lists above, its parameters beside self) of every function of a file."""

    def walk(node, prefix):
        for child in ast.iter_child_nodes(node):
            inner = prefix
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                inner = f"{prefix}{child.name}."
            if isinstance(child, ast.FunctionDef):
                given = child.args.posonlyargs + child.args.args + child.args.kwonlyargs
                names = [one.arg for one in given if one.arg not in ("self", "cls")]
                yield f"{label(file)}:{inner[:-1]}", names
            yield from walk(child, inner)

    yield from walk(tree(file), "")


def test_no_function_below_a_main_takes_an_argparse_namespace():
    below = [file for file in SCRIPTS + MODULES if label(file) not in FLAGS]
    takes = {place for file in below for place, names in functions(file) if "args" in names}
    assert sorted(takes) == [], "take a dataclass of utils/config.py"


def test_no_function_has_more_than_seven_parameters():
    takes = {place for f in SCRIPTS + MODULES for place, names in functions(f) if len(names) > 7}
    assert sorted(takes) == [], "more than seven parameters"


@pytest.mark.parametrize("file", SCRIPTS, ids=label)
def test_scripts_open_and_close_alike(file):
    """A docstring for --help, main(argv=None), and run(main) under the guard; nothing else runs on import."""
    body = tree(file).body
    assert ast.get_docstring(tree(file))
    (main,) = [node for node in body if isinstance(node, ast.FunctionDef) and node.name == "main"]
    assert ast.unparse(main.args) == "argv=None"
    assert ast.unparse(body[-1]) == "if __name__ == '__main__':\n    run(main)"
    calls = [node for node in body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)]
    assert not calls, f"{label(file)}:{calls[0].lineno} works at import"


@every_file
def test_only_checkpoints_turn_a_name_into_a_module(file):
    registries = {"AE_models", "MARDM_models", "DiffMLPs_models"}
    used = [
        node.lineno
        for node in ast.walk(tree(file))
        if isinstance(node, ast.Subscript) and ast.unparse(node.value).split(".")[-1] in registries
    ]
    allowed = room(file) in ("models", "benchmarks") or label(file) == "utils/checkpoints.py"
    assert allowed or not used, f"{label(file)}:{used[0]}: use utils/checkpoints.py"


@every_file
def test_what_is_learned_knows_no_flags_and_no_plots(file):
    outer = {"models": {"matplotlib"}, "diffusions": {"matplotlib"}, "motion": {"torch"}}
    if room(file) in outer:
        banned = {"argparse", "tensorboard"} | outer[room(file)]
        assert not banned & {name.split(".")[0] for name in imports(file)}


@every_file
def test_files_can_be_read_at_a_sitting(file):
    lines = sum(1 for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    assert lines <= LINES["scripts" if file in SCRIPTS else "modules"]
