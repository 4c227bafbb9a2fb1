"""The entry scripts: the environment they make, the commands they run, what a second sitting repeats."""

import importlib
import os
import re
import shlex
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from utils.errors import BadInput

LISTS = ("requirements.txt", "requirements-clip.txt")
SITTINGS = {"train_fsq_pipeline.sh": ["--demo"], "experiments/bandai_namco.sh": []}


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


@pytest.mark.parametrize("script", sorted(path.name for path in ROOT.glob("*.py")))
def test_a_python_without_pytorch_is_one_line_with_a_remedy(script):
    """-S leaves out site-packages, as a Python outside of the environment has none of ours."""
    done = subprocess.run(
        [sys.executable, "-S", script, "--help"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: this Python has no PyTorch: source .venv/bin/activate")


@pytest.fixture
def pipeline(checkout):
    """The pipelines and a stand-in for Python that notes each command and fails where `fails` says so."""
    (checkout / "experiments").mkdir()
    for name in (*SITTINGS, "experiments/cmu.sh", "scripts/steps.sh", *LISTS):
        (checkout / name).write_bytes((ROOT / name).read_bytes())
    bin = checkout / ".venv/bin"
    bin.mkdir(parents=True)
    for name in LISTS:
        (checkout / f".venv/installed-{name}").write_bytes((ROOT / name).read_bytes())
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
    for script, *flags in called:
        args = parse(script, flags)
        if options and "device" in args:
            assert args.dataset_name == {"--demo": "Demo"}.get(options[0], "kit")


def test_a_head_that_needs_no_distillation_gets_none(pipeline):
    done = bash(pipeline, "train_fsq_pipeline.sh", "--demo", "--model", "FSQ-MARDM-Softmax-XS")
    assert done.returncode == 0, done.stderr
    scripts = [command[0] for command in commands(pipeline)]
    assert "train_MARDM.py" in scripts and "distill_MARDM.py" not in scripts


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
    begun = pipeline / "checkpoints/Demo/FSQ_MARDM_SiT_XS/model/latest.tar"  # as a training leaves it
    begun.parent.mkdir(parents=True)
    begun.touch()
    (pipeline / "calls").unlink()
    assert bash(pipeline, "train_fsq_pipeline.sh", "--demo").returncode == 0
    called = {script: flags for script, *flags in commands(pipeline)}
    assert "--is_continue" in called["train_MARDM.py"]
    assert not {"train_AE.py", "evaluation_AE.py"} & called.keys()  # finished in the first sitting


def test_every_command_of_the_line_on_cmu_is_one_its_script_takes(pipeline):
    """Twice: the second sitting repeats no training, and goes on with a distillation that was begun."""
    begun = pipeline / "checkpoints/CMU/FSQ_MARDM_SiT_S/onestep/model"
    for sitting in range(2):
        assert bash(pipeline, "experiments/cmu.sh").returncode == 0
        called = [(script, parse(script, flags), flags) for script, *flags in commands(pipeline)]
        named = [f"{script} {args.name}" for script, args, _ in called if script.endswith("MARDM.py")]
        (pipeline / "calls").unlink()
        if sitting == 0:
            assert sum(name.startswith("distill") for name in named) == 9
            (begun / "latest.tar").touch()
            (begun / "distill_mardm.done").unlink()
        else:
            assert named == ["distill_MARDM.py FSQ_MARDM_SiT_S", *["evaluation_MARDM.py FSQ_MARDM_SiT_S"] * 4]
            assert "--is_continue" in called[-5][2]


@pytest.mark.parametrize("script", SITTINGS)
@pytest.mark.parametrize(
    "name, trains", [("text_mot_match", "Evaluators"), ("length_estimator", "LengthEstimator")]
)
def test_an_interrupted_evaluator_goes_on_and_one_from_elsewhere_is_taken(pipeline, script, name, trains):
    data = "Demo" if "fsq" in script else "BandaiNamco"
    folder = pipeline / "checkpoints" / data / name / "model"
    folder.mkdir(parents=True)

    def called(*present):
        for file in ("latest.tar", "finest.tar"):
            (folder / file).touch() if file in present else (folder / file).unlink(missing_ok=True)
        (pipeline / "calls").unlink(missing_ok=True)
        assert bash(pipeline, script, *SITTINGS[script]).returncode == 0
        return [flags for first, *flags in commands(pipeline) if first == f"train_{trains}.py"]

    assert called("finest.tar") == []
    (interrupted,) = called("latest.tar", "finest.tar")  # after its first epoch it has a best one
    assert interrupted[-1] == "--is_continue"
    assert called("latest.tar", "finest.tar") == []


@pytest.mark.parametrize("script", SITTINGS)
def test_a_second_sitting_repeats_nothing_and_appends_to_the_logs(pipeline, script):
    """No training, evaluation or sampling, until a training has gone on or a command has changed."""

    def sitting(*options):
        (pipeline / "calls").unlink(missing_ok=True)
        done = bash(pipeline, script, *SITTINGS[script], *options)
        assert done.returncode == 0, done.stderr
        costly = ("train_AE", "train_MARDM", "distill_MARDM", "evaluation_AE", "evaluation_MARDM", "sample")
        calls = [
            (one[0][:-3], one[one.index("--name") + 1 :][:1]) for one in commands(pipeline) if "--name" in one
        ]
        return [(script, *name) for script, name in calls if script in costly]

    everything = sitting()
    assert len(everything) == (6 if "fsq" in script else 115)
    log = pipeline / "logs" / ("Demo" if "fsq" in script else "BandaiNamco") / "train_ae.log"
    first = log.read_text()
    assert sitting() == [] and log.read_text().startswith(first)
    (marker,) = pipeline.glob("checkpoints/*/FSQ_MARDM_SiT_XS/model/train_mardm.done")
    marker.unlink()  # training goes on: what was measured of it has to be measured again
    assert sitting() == [call for call in everything if call[1] == "FSQ_MARDM_SiT_XS"]
    if "fsq" in script:
        assert [call[0] for call in sitting("--ae_epochs", "2")[:2]] == ["train_AE", "evaluation_AE"]
        assert first in log.read_text() and log.read_text().count("ran train_AE.py") == 2
