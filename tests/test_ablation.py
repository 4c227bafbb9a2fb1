"""The ablation: every command is one its script takes, jobs run once and resume, claims in closed form."""

import importlib
import json
import math
import re
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats

from experiments.ablation import claims, report, stories
from experiments.ablation import run as runner
from experiments.ablation.claims import Numbers, claim, collect, hypotheses, measured, verdict
from experiments.ablation.plan import ARMS, SEARCH, SIZES, Job, Plan, chosen, record_of, run_of
from tests.conftest import ROOT
from tests.test_setup import parse
from tests.tiny import call, where
from utils.errors import BadInput


@pytest.mark.parametrize("size", SIZES)
def test_every_command_is_one_its_script_takes(size, monkeypatch):
    monkeypatch.setattr("experiments.ablation.plan.chosen", lambda runs, arm, search: ("2e-3", SEARCH[0]))
    samplers = set()
    for dataset in SIZES[size].sets:
        plan = Plan(size, dataset, "checkpoints/x")
        jobs = list(plan.jobs())
        names = [job.name for job in jobs]
        assert len(set(names)) == len(names)
        for job in jobs:
            assert set(plan.needs(job)) <= set(names[: names.index(job.name)]), (
                job.name
            )  # an order that works
            script, *flags = plan.command(job)
            flags = [str(flag) for flag in flags]
            parsed = parse(*(flags[0], flags[1:]) if script == "-m" else (script, flags))
            if script == "evaluation_MARDM.py" and "onestep" not in job.record:
                arm = job.run.split("_")[0]
                assert parsed.sampler == ("auto" if arm in ("softmax", "independent") else "midpoint")
                samplers.add(parsed.sampler)
    assert samplers == {"auto", "midpoint"}


def test_seeds_of_autoencoders_and_generators_are_apart_and_arms_differ_in_one_thing():
    for size in SIZES.values():
        assert not set(size.seeds) & {10, *size.generator_seeds}
    plan = Plan("full", "BandaiNamco", "c")
    trained = {job.run: job.command for job in plan.jobs() if job.record == "train"}
    fsq, narrow = (set(trained[run_of(arm, (1, 11))]) for arm in ("fsq", "narrow"))
    assert fsq ^ narrow == {
        "fsq_1_11",
        "narrow_1_11",
        "FSQ_16_1",
        "Narrow_1",
        "FSQ-MARDM-SiT-XS",
        "MARDM-SiT-XS",
    }
    assert all(f"| `{arm}` |" in RULED for arm in ARMS)
    assert all(f"| {name} |" in RULED for name in claims.RULES)


RULED = (ROOT / "experiments/ablation/RULES.md").read_text()


def evaluated(folder, name, record="test", row="reconstruction", **values):
    """An evaluation's JSON as the scripts leave it."""
    interval = {key: {"mean": x, "half": 0.1, "half_clips": 0.03} for key, x in values.items()}
    path = folder / name / "eval" / f"{record}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    found = json.loads(path.read_text()) if path.is_file() else {"rows": {}}
    found["rows"][row] = {"interval": interval, "repeats": []}
    path.write_text(json.dumps(found))


def test_the_settings_with_the_least_fid_on_val_are_chosen(tmp_path):
    for i, (rate, one) in enumerate((rate, one) for rate in ("2e-3", "7e-4") for one in SEARCH):
        evaluated(tmp_path, f"fsq_lr{rate}", record_of(one), "generated", fid=abs(i - 17.0))
    assert chosen(tmp_path, "fsq", SIZES["full"]) == ("7e-4", SEARCH[5])


# running


class OneJob:
    """A plan whose jobs run these Python scripts; the second needs the first."""

    def __init__(self, runs, *scripts):
        self.runs = runs
        self.list = [Job("a", str(k), ("-c", script)) for k, script in enumerate(scripts)]

    def needs(self, job):
        return ("a/0",) if job.record == "1" else ()

    def command(self, job):
        return job.command


def test_jobs_run_once_in_order_and_again_after_a_failure(tmp_path):
    note = f"open({str(tmp_path / 'seen')!r}, 'a').write"
    plan = OneJob(
        tmp_path, f"{note}('0')", f"{note}('1'); import os; assert os.path.exists('{tmp_path}/mended')"
    )
    jobs = [(plan, job) for job in reversed(plan.list)]
    with pytest.raises(BadInput, match="a/1 ended with 1"):
        runner.work(jobs)
    (tmp_path / "mended").touch()
    runner.work(jobs)
    runner.work(jobs)
    assert (tmp_path / "seen").read_text() == "011"
    with pytest.raises(BadInput, match="wait for others"):
        runner.work([(OneJob(tmp_path / "new", "", ""), plan.list[1])])


def test_a_job_that_another_process_has_is_left_to_it(tmp_path):
    plan = OneJob(tmp_path, "raise SystemExit(1)")
    with runner.claim(tmp_path / "done/a--0.lock") as free:
        assert free and not runner.started(plan, plan.list[0])


def in_this_process(command, **_):
    """Stands in for subprocess.run."""
    script, *flags = command[2:] if command[1] == "-m" else command[1:]
    main = importlib.import_module(script.removesuffix(".py")).main
    return SimpleNamespace(returncode=call(main, flags))


def test_the_smallest_plan_runs_and_reports(world, tmp_path, monkeypatch):
    """The real commands on tiny data, from the autoencoder to the page; the tables list the commands."""
    folder = tmp_path / "runs"
    shutil.copytree(world / "checkpoints/Demo/text_mot_match", folder / "Demo/text_mot_match")
    plan = Plan("tiny", "Demo", folder)
    plan.common += ("--dataset_dir", str(world / "datasets"), "--device", "cpu")
    wanted = [
        job for job in plan.jobs() if job.run in ("AE_1", "FSQ_16_1", "fsq_lr2e-3", "fsq_lr7e-4", "fsq_1_11")
    ]
    (folder / "Demo/done").mkdir()
    (folder / "Demo/done/prepare--evaluator").touch()
    monkeypatch.setattr(runner.subprocess, "run", in_this_process)
    runner.work([(plan, job) for job in wanted])
    record = collect(plan)
    assert len(measured(record, "fsq").seeds) == len(measured(record, "fsq", evaluation="onestep").seeds) == 1
    assert (
        claims.story_growth(record, "fsq", "off").seeds.keys() == {1}
        and record["reference"]["fid"]["mean"] > 0
    )
    assert record["training"]["runs"]["fsq_111"]["steps"] == 4
    monkeypatch.setattr(report, "collect", lambda plan: record)
    report.main(f"--size tiny --out {tmp_path}/x --comparison {tmp_path}/c.md".split())
    assert (
        "train_MARDM.py" in (tmp_path / "x_tables.md").read_text()
        and (tmp_path / "x_Demo_arms.png").is_file()
    )
    for _ in range(2):  # the second replaces the first; the size is the report's, tiny
        report.main(f"--report {tmp_path}/x.json --again {folder}".split())
    page = (tmp_path / "x.md").read_text()
    first, again = re.split("### Demo again, size `tiny`, .*, with an evaluator of its own: ", page)
    assert "| H5 |" in first and "| H5 |" in again and not re.search(r"\| H9 \|", page)
    assert re.search("^Not run, in whole or in part: .*H9.* Not testable here, .*: H3, H4.$", first, re.M)
    assert not re.search("not run|not testable", again, re.I)


@pytest.mark.parametrize("words", ["--size small --list", "--size=tiny --list", "--list --size=reduced"])
def test_a_list_of_commands_runs_and_writes_nothing(words, tmp_path):
    """With a stand-in for Python that prints its commands."""
    for folder in ("experiments/ablation", "scripts"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "scripts/setup.sh").write_text('python() { echo "$@"; }\nexec() { "$@"; exit; }\n')
    command = ["bash", "experiments/ablation/run.sh"]
    size = re.search(r"small|tiny|reduced", words)[0]
    without = words.replace("--list", "").split()
    for more, lines, evaluated in ((words.split(), 1, True), (without, 1, False), (without, 2, True)):
        record = tmp_path / f"checkpoints/ablation_{size}/Demo/run/eval/test.json"
        shutil.rmtree(tmp_path / "checkpoints", ignore_errors=True)
        if evaluated:
            record.parent.mkdir(parents=True)
            record.touch()
        said = subprocess.run([*command, *more], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert len(said.stdout.splitlines()) == lines
    assert re.search(r"small|tiny|reduced", words)[0] in said.stdout.splitlines()[-1]


def test_a_report_of_nothing_is_refused(tmp_path):
    with pytest.raises(BadInput, match="holds no evaluated run"):
        report.main(f"--size tiny --folder {tmp_path} --out {tmp_path}/x".split())
    assert not list(tmp_path.iterdir())


# claims


def test_a_claim_in_closed_form():
    three = Numbers({1: 1.0, 2: 2.0, 3: 3.0})  # mean 2, half 4.3027 / sqrt(3) = 2.4841
    answers = {(4.49, False): "yes", (4.48, False): "open", (-0.49, False): "no", (-0.49, True): "yes"}
    for (limit, above), answer in answers.items():
        assert claim("x", three, limit, above)["answer"] == answer
    assert claim("x", three, 4.49)["figure"] == "2.000 ± 2.484"
    assert claim("x", Numbers({1: 0.0, 2: 0.0}), 4)["answer"] == "open"  # two seeds
    wider = Numbers(three.seeds, clips=2.0)
    assert wider.interval()[1] == pytest.approx(math.hypot(2.4841, 2), abs=1e-3)
    assert (wider - wider).clips == pytest.approx(2 * math.sqrt(2))
    # noticed with 80%: the noncentral t
    assert float(claim("x", three)["power"]) == pytest.approx(3.264, abs=2e-3)
    assert claim("x", Numbers({1: 0.0, 2: 1.0}))["power"] == "-"  # two seeds notice nothing
    assert claim("x", Numbers({}))["answer"] == "not run"


@pytest.mark.parametrize("n, sd, clips", [(3, 1, 0), (4, 1, 0), (3, 0.072, 0.227), (4, 1, 2), (3, 0.01, 1)])
def test_the_power_that_is_stated_is_that_of_the_test(n, sd, clips):
    """Simulated: seeds scatter by sd, all of them move together with the clips."""
    stated = float(claim("x", planted(n, sd, clips), digits=5)["power"])
    if not clips:
        t = scipy.stats.t.ppf(0.975, n - 1)
        assert scipy.stats.nct.sf(t, n - 1, stated * math.sqrt(n) / sd) == pytest.approx(0.8, abs=1e-3)
    rng, times = np.random.default_rng(0), 20000
    seeds = rng.normal(stated, sd, (times, n)) + rng.normal(0, clips / 1.96, (times, 1))
    halves = np.hypot(scipy.stats.t.ppf(0.975, n - 1) * seeds.std(1, ddof=1) / math.sqrt(n), clips)
    assert np.mean(seeds.mean(1) > halves) == pytest.approx(0.8, abs=0.01)
    answers = [claim("x", Numbers(dict(enumerate(x)), clips), 0, True)["answer"] for x in seeds[:20]]
    assert answers == ["yes" if x.mean() > half else "open" for x, half in zip(seeds[:20], halves)]


def planted(n, sd, clips):
    """n seeds whose standard deviation is sd."""
    values = np.arange(n) / np.std(np.arange(n), ddof=1) * sd
    return Numbers(dict(enumerate(values.tolist())), clips)


STEPS = {
    "both reach it": ([1200, 1200, 600], [1800, 1800, 1200], "-600 ± 0", "yes"),
    "fsq never": ([None, None, None], [1200, 1800, 1800], "> 800: not reached by fsq", "open"),
    "the other never": ([600, 600, 600], [2400, None, 2400], "< -1800: not reached by narrow", "open"),
    "neither": ([None, 600, 600], [None, None, 1200], "not reached by fsq, narrow", "open"),
}


@pytest.mark.parametrize("fsq, narrow, figure, answer", STEPS.values(), ids=STEPS)
def test_an_fid_that_was_never_reached_has_no_interval(fsq, narrow, figure, answer):
    runs = {
        f"{arm}_{a}11": {"group": arm, "seed": a * 100 + 11, "steps": 2400, "steps_to_fid": x, "cv": 0.1}
        for arm, steps in (("fsq", fsq), ("narrow", narrow))
        for a, x in enumerate(steps, start=1)
    }
    first, found, _ = claims.h2({"training": {"runs": runs}}, 0.0)
    assert (first["answer"], found["figure"], found["answer"]) == ("not run", figure, answer)
    assert found["n"] == 3 and (found["power"] == "-") == (None in fsq + narrow)


def test_the_power_of_the_ratio_of_variances_is_that_of_the_test():
    """F(2, 2) in closed form: its distribution function is x / (1 + x)."""
    seeds = {"FSQ_14": (0.0, 1.0, 2.0), "VQ_14": (0.0, 1.0, 2.0)}
    runs = {
        f"{name}_{a}": {"test": {"rows": {"reconstruction": {"fid": {"mean": fid}}}}}
        for name, fids in seeds.items()
        for a, fid in enumerate(fids, start=1)
    }
    found = claims.spread({"variants": list(seeds), "codes": [14], "runs": runs})
    assert (found["figure"], found["n"], found["answer"]) == ("1.00 (0.03 to 39.00)", 4, "open")
    assert float(found["power"]) == pytest.approx(39 / 0.25)  # noticed with 80%: 1 - .2 = P(r F > 39)


def test_verdicts():
    def of(*answers):
        return verdict([{"answer": answer} for answer in answers])

    assert of("yes", "yes", claims.UNTESTABLE) == "supported"
    assert of("yes", "no") == "not supported"
    assert of("yes", "open") == of("not run") == of(claims.UNTESTABLE) == "undecided"


@pytest.fixture
def record(tmp_path):
    """Three seeds: FSQ is better than VQ, worse than continuous by more than R; VQ scatters."""
    plan = Plan("reduced", "BandaiNamco", tmp_path)
    root, noise = plan.runs, np.random.default_rng(0)
    fids = {"AE": 0.2, "Narrow": 0.3, "FSQ_9": 0.9, "FSQ_14": 0.6, "FSQ_16": 0.55, "VQ_9": 0.9}
    fids |= {"VQ_14": 2.0, "VQ_16": 3.0}
    for name, fid in fids.items():
        for seed in (1, 2, 3, 4):
            wide = 0.4 if name in ("VQ_14", "VQ_16") else 0.01
            evaluated(root, f"{name}_{seed}", fid=fid + wide * noise.normal(), mpjpe=20.0)
    evaluated(root, "AE_1", row="nearest length", fid=0.1)
    for arm, fid in {
        "continuous": 0.4,
        "narrow": 0.6,
        "fsq": 0.5,
        "vq": 2.0,
        "softmax": 0.9,
        "independent": 1.5,
    }.items():
        for seed in (1, 2, 3):
            evaluated(root, run_of(arm, (seed, 11)), "test_latest", "generated", fid=fid + 0.01 * seed)
    for snap, last in (("step", 0.1), ("off", 2.0)):
        for seed in (1, 2, 3):
            quarters = [{"fid": x, "half_clips": {"fid": 0.01}} for x in (0.1, 0.1, 0.1, last)]
            path = root / run_of("fsq", (seed, 11)) / f"eval/stories_{snap}.json"
            path.write_text(json.dumps({"quarters": quarters}))
    return collect_without_curves(plan)


def collect_without_curves(plan):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claims, "read_points", lambda folder: {})
        patch.setattr(claims, "examine", lambda curves: {"runs": {}, "names": list(curves)})
        return collect(plan)


def test_what_was_planted_is_found(record):
    found = {one["name"]: [c["answer"] for c in one["claims"]] for one in hypotheses(record)}
    assert found["H1"] == ["no", "no", "yes"]
    assert found["H3"] == ["yes", "yes", claims.UNTESTABLE]
    assert found["H4"] == ["yes", claims.UNTESTABLE]
    assert found["H8"] == ["yes", "yes", "yes"]
    assert found["H10"] == ["yes", "yes", "not run"]
    assert found["Controls"] == ["yes", "yes", "yes", "no"]
    assert {*found["H2"], *found["H5"], *found["H6"], *found["H7"], *found["H9"]} == {"not run"}
    assert record["training"]["names"][0] == "continuous_111"


def test_generators_of_one_autoencoder_are_averaged(record):
    record["runs"]["fsq_1_12"] = {"test_latest": {"rows": {"generated": {"fid": {"mean": 0.71}}}}}
    assert measured(record, "fsq").seeds == pytest.approx({1: 0.61, 2: 0.52, 3: 0.53})
    record["runs"]["fsq_w64_1_11"] = record["runs"]["fsq_1_12"]
    assert measured(record, "fsq_w64").seeds == {1: 0.71}


def test_from_the_json_alone_come_page_tables_and_figures(record, tmp_path, capsys):
    record["training"] = None
    whole = {"size": "reduced", "machine": "m", "date": "d", "summary": "In short.", "sets": [record]}
    (tmp_path / "ablation.json").write_text(json.dumps(whole))
    report.main(["--report", f"{tmp_path}/ablation.json", "--comparison", f"{tmp_path}/c.md"])
    page = (tmp_path / "ablation.md").read_text()
    assert "In short." in page and len(page.splitlines()) < 250
    assert page.count("![") == 3 and "H1: not supported" in capsys.readouterr().out
    assert "| fsq | 3 | 0.520 ± 0.0" in (tmp_path / "ablation_tables.md").read_text()
    compared = (tmp_path / "c.md").read_text()
    assert "| FSQ_AE_High | FSQ_16 | 8 8 8 5 5 5 | 64000 | 6 |" in compared
    assert "`--windows_per_clip all`; the default is `equal`." in compared
    elsewhere = whole | {"size": "small", "machine": "n", "sets": [record, record | {"machine": "o"}]}
    (tmp_path / "earlier.json").write_text(json.dumps(elsewhere))
    for _ in range(2):  # the second time they are replaced
        report.main(["--report", f"{tmp_path}/ablation.json", "--again", f"{tmp_path}/earlier.json"])
    headings = re.findall("### .*", (tmp_path / "ablation.md").read_text())
    assert len(headings) == 3 and "`small`" in headings[1]
    assert headings[2].endswith("d, with an evaluator of its own: o")


def test_stories_are_measured_by_their_quarters(world, tmp_path):
    shutil.copytree(world / "checkpoints", tmp_path, dirs_exist_ok=True)
    flags = f"{where(world, tmp_path)} --name MARDM --time_steps 2 --stories 2 --prompts 8 --record s"
    assert call(stories.main, flags) == 0
    found = json.loads((tmp_path / "Demo/MARDM/eval/s.json").read_text())["quarters"]
    assert [one["n"] for one in found] == [4] * 4 and all(np.isfinite(one["fid"]) for one in found)
