"""Evaluations of the same clips, compared with intervals that are paired over clips."""

import json

import numpy as np
import pytest

import analyze_evaluations
import evaluation_MARDM
from tests.tiny import PAIR, call, where
from utils.analysis.paired import compare, read_record, table
from utils.errors import BadInput
from utils.metrics import half_width

HARD = np.random.default_rng(0).normal(0, 0.05, 40)  # what makes a half hard, for every run


def write(path, fid, noise, clips=0.0, matching=0.8):
    """A record whose FID varies over halves with HARD and, by itself, with `noise`."""
    own = np.random.default_rng(int(fid * 1000)).normal(0, noise, 40)
    real = {"root_speed": (0.5 + clips + HARD).tolist(), "matching": (matching + HARD).tolist()}
    halves = {"fid": (fid + HARD + own).tolist(), "jitter": (50 + own).tolist(), "matching": [1.0] * 40}
    rows = {
        "real": {"interval": {"jitter": {"mean": 54.0}}, "halves": real},
        "generated": {
            "interval": {"fid": {"mean": fid}, "jitter": {"mean": 50.0}, "matching": {"mean": 1.0}},
            "halves": halves,
        },
    }
    rows["reconstruction"] = rows["real"]  # the row that the generated one goes before
    path.write_text(json.dumps({"rows": rows}))
    return path


def test_what_both_runs_share_leaves_the_interval(tmp_path):
    files = {name: write(tmp_path / name, fid, 0.002) for name, fid in (("a", 0.3), ("b", 0.28))}
    records = {name: read_record(file) for name, file in files.items()}
    apart = half_width(records["a"]["compared"]["halves"]["fid"])
    compared = compare(records)
    value, difference, half = compared["fid"]["b"]
    assert (value, difference) == (0.28, pytest.approx(-0.02)) and 0.002 < half < 0.01 < 0.07 < apart
    assert compared["fid"]["a"][1:] == (0, 0)
    records["b"]["compared"]["mean"]["matching"] = 1.1  # in a later repeat: the halves are of the first
    compared = compare(records)
    assert np.isnan(compared["matching"]["b"][2])
    text = table(records, compared)
    assert "+0.1 ± n/a |" in text
    assert "| FID | - | 0.3 | 0.28 | -0.02 ± 0.0" in text and " * |" in text.splitlines()[2]
    assert "*" not in next(line for line in text.splitlines() if line.startswith("| Jitter"))
    record = json.loads(files["b"].read_text())
    record["rows"]["generated"]["interval"]["fid"]["mean"] = None  # as NaN is written
    files["b"].write_text(json.dumps(record))
    assert np.isnan(read_record(files["b"])["compared"]["mean"]["fid"])


def test_other_clips_are_refused_and_another_evaluator_leaves_only_what_needs_none(tmp_path):
    base = read_record(write(tmp_path / "a", 0.3, 0.01))
    with pytest.raises(BadInput, match="not of the same clips"):
        compare({"a": base, "b": read_record(write(tmp_path / "b", 0.2, 0.01, clips=0.1))})
    assert list(compare({"a": base, "b": read_record(write(tmp_path / "b", 0.2, 0.01, matching=0.7))})) == [
        "jitter"
    ]


@pytest.mark.parametrize(
    "text, match",
    [
        ("{}", "no record of an evaluation"),
        ("[1", "no record of an evaluation"),
        ("[" * 100_000, "no record of an evaluation"),
        ('{"rows": {"real": {}}}', "no record of an evaluation"),
        ('{"rows": {"real": {}, "generated": {"interval": {}}}}', "evaluate that run again"),
    ],
)
def test_what_is_no_record_gets_one_line(tmp_path, text, match):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(BadInput, match=match):
        read_record(tmp_path / "x.json")
    with pytest.raises(BadInput, match="cannot be read"):
        read_record(tmp_path / "none.json")


def test_two_evaluations_of_one_run(world, capsys, tmp_path):
    """The real commands: the same motions differ by nothing, another temperature by something."""
    flags = f"{where(world)} --name MARDM {PAIR} --time_steps 2 --repeat_times 1"
    for name, temperature in (("one", 1), ("same", 1), ("other", 0.1)):
        assert call(evaluation_MARDM.main, f"{flags} --temperature {temperature} --record {name}") == 0
    files = [str(world / f"checkpoints/Demo/MARDM/eval/{name}.json") for name in ("one", "same", "other")]
    capsys.readouterr()
    assert call(analyze_evaluations.main, f"{' '.join(files)} --json {tmp_path}/c.json") == 0
    measures = json.loads((tmp_path / "c.json").read_text())["measures"]
    assert {"fid", "jitter", "foot_skate", "root_speed"} <= measures.keys()
    for values in measures.values():
        same, other = values["MARDM/same"], values["MARDM/other"]
        assert same[1:] == [0, 0] and other[2] >= 0
    assert measures["jitter"]["MARDM/other"][1] != 0
    assert "MARDM/other - MARDM/one" in capsys.readouterr().out
    with pytest.raises(BadInput, match="two or more"):
        analyze_evaluations.parse(files[:1])
