"""The study of solvers and rounds: its rule, its report, and the pictures of other pages on sampling."""

import json
import math
import shutil
import sys
from types import SimpleNamespace

import pytest

from experiments import attention
from experiments.sampling import evaluations, speed
from experiments.sampling.report import TEACHER, Family, format_n, format_spread, rounds_table, write_report
from experiments.sampling.study import cells
from models.DiffMLPs import DiffMLPs_SiT
from models.OneStep import OneStepHead
from models.sampling import SamplingConfig, resolve_sampling
from tests.conftest import ROOT
from tests.tiny import call
from utils.errors import BadInput

GRID = {"euler-8": (5.3, 8), "midpoint-8": (5.02, 8), "midpoint-4": (5.01, 4), "heun-16": (4.9, 16)}


def record(run, repeats=5, family="FSQ", shift=0.0):
    """A run in which midpoint is near dopri5 and Euler is not; repeats differ by their number."""

    def cell(fid, evaluations):
        return {
            "repeats": {
                str(n): {
                    "fid": fid + shift + n / 10,
                    "top1": 0.7,
                    "foot_skate": 0.1,
                    "evaluations": evaluations,
                    "seconds": 1.0,
                }
                for n in range(repeats)
            }
        }

    cells = {f"{name}/step": cell(*values) for name, values in GRID.items()}
    return {
        "run": run,
        "family": family,
        "model": "FSQ-MARDM-SiT-XS",
        "dataset": "Toy",
        "split": "test",
        "clips": 3,
        "batch_size": 2,
        "threads": 1,
        "default": {"cfg": 2.5},
        "cells": cells | {"dopri5/step": cell(5.0, 50)},
        "landing": {},
    }


def test_differences_leave_out_what_the_seeds_differ_by():
    family = Family([record(f"r{i}", shift=10.0 * i) for i in range(3)])
    assert family.summary("euler-8/step", "fid")[1] > 4
    mean, half = family.against("euler-8/step", "dopri5/step")
    assert mean == pytest.approx(0.3) and half < 1e-9


def drawn(effects, cells, repeats=5):
    """Runs whose FID is that of the cell plus an effect of the seed and a small one of the repeat."""
    runs = []
    for seed, effect in enumerate(effects):
        one = {"run": f"r{seed}", "cells": {}}
        for cell, (fid, slope) in cells.items():
            fids = [fid + slope * effect + (n - 2) / 100 for n in range(repeats)]
            one["cells"][cell] = {"repeats": {str(n): {"fid": x} for n, x in enumerate(fids)}}
        runs.append(one)
    return Family(runs)


def t_of_three(spacing):
    """Half width over three values `spacing` (their deviation) apart: t of 2 degrees, in closed form."""
    return 0.95 / math.sqrt(2 * 0.975 * 0.025) * spacing / math.sqrt(3)


def test_intervals_are_over_seeds_not_over_their_repeats():
    family = drawn((-1, 0, 1), {"a": (5, 1), "b": (6, 1.5)})
    assert family.summary("a") == pytest.approx((5, t_of_three(1)))
    assert family.against("b", "a") == pytest.approx((1, t_of_three(0.5)))
    assert family.against("a", "a") is None and family.against("a", "c") is None
    assert format_n(family.values("a")) == "3 x 5" and "(r)" not in format_spread(family.values("a"))


def test_seeds_weigh_equally_whatever_their_repeats():
    values = {("r0", "0"): 1.0, ("r1", "0"): 2.0, ("r1", "1"): 2.0, ("r2", "0"): 3.0}
    assert format_spread(values) == f"2.000 ± {t_of_three(1):.3f}" and format_n(values) == "3 x 1-2"


def test_the_interval_of_one_seed_is_over_its_repeats_and_says_so():
    values = drawn((3,), {"a": (5, 1)}, repeats=3).values("a")
    assert format_spread(values) == f"7.990 ± {t_of_three(0.01):.3f} (r)"
    assert format_n(values) == "1 x 3" and format_spread({("r0", "0"): 2.0}) == "2.000"


def test_the_rule_for_rounds_takes_the_interval_over_seeds():
    """The teacher's FID spreads by the seed; half of its ± is 0.62, over fifteen repeats it would be 0.12."""
    family = Family([with_rounds(f"r{i}", halton=5.4) for i in range(3)])
    for shift, one in zip((-0.5, 0, 0.5), family.records):
        for cell in (TEACHER, "rounds-9/halton/midpoint"):
            for figures in one["cells"][cell]["repeats"].values():
                figures["fid"] += shift
    assert family.summary(TEACHER)[1] == pytest.approx(t_of_three(0.5))
    assert family.holds("rounds-9/halton/midpoint") and not family.holds("rounds-9/random/midpoint")


def test_converged_is_where_it_stays_near():
    family = Family([record("r0")])
    assert family.converged("midpoint") == 4 and family.converged("euler") is None


def with_rounds(run, halton=5.0, skate=0.1, speed=0.5):
    """Nine rounds in either order beside the teacher's eighteen."""
    one = record(run)
    cells = {
        "rounds-18/random/midpoint": (5.0, 0.1, 0.5, 3.0),
        "rounds-9/random/midpoint": (6.0, 0.1, 0.5, 1.0),
        "rounds-9/halton/midpoint": (halton, skate, speed, 2.0),
    }
    for cell, (fid, skate, speed, seconds) in cells.items():
        figures = {"fid": fid, "top1": 0.7, "foot_skate": skate, "root_speed": speed}
        noisy = [{key: x * (1 + n / 100) for key, x in figures.items()} for n in range(5)]
        repeats = {str(n): x | {"evaluations": 8, "seconds": seconds} for n, x in enumerate(noisy)}
        one["cells"][cell] = {"repeats": repeats}
    return one | {"root_speed": 0.5}


@pytest.mark.parametrize(
    ("runs", "changes", "holds"),
    [
        (3, {}, True),
        (2, {}, False),
        (3, {"halton": 5.2}, False),
        (3, {"skate": 0.2}, False),
        (3, {"speed": 0.4}, False),
    ],
)
def test_fewer_rounds_hold_by_every_part_of_the_rule(runs, changes, holds):
    family = Family([with_rounds(f"r{i}", **changes) for i in range(runs)])
    assert family.holds("rounds-9/halton/midpoint") is holds
    assert not family.holds("rounds-9/random/midpoint")
    assert ("`rounds-9/halton/midpoint`" in rounds_table(family)) is holds


def test_the_report_renews_the_tables_and_keeps_the_text_above_them(tmp_path):
    for i in range(3):
        (tmp_path / f"r{i}.json").write_text(json.dumps(record(f"r{i}", shift=i / 10)))
    page = tmp_path / "sampling.md"
    page.write_text("# By hand\n\n## How to read the tables\n\nof last year\n")
    for _ in range(2):
        write_report(tmp_path, page)
        text = page.read_text()
        assert text.startswith("# By hand\n\n## How to read the tables\n\nWritten by")
        assert "last year" not in text
        assert "| euler | 8 |" in text and "+0.300" in text
    assert (tmp_path / "sampling.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(BadInput, match="holds no records"):
        write_report(tmp_path / "nothing", tmp_path / "b.md")


def test_the_page_holds_the_tables_of_its_records(tmp_path):
    page = ROOT / "results/sampling.md"
    shutil.copy(page, tmp_path)
    write_report(ROOT / "results/sampling", tmp_path / "sampling.md")
    assert (tmp_path / "sampling.md").read_text("utf-8") == page.read_text("utf-8")


def test_the_picture_of_one_evaluation_is_of_the_records_of_the_page(tmp_path):
    found = evaluations.read(ROOT / "results/bandai_namco")
    assert {kind: len(seeds) for kind, seeds in found.items()} == {"grid": 2, "finer": 1, "continuous": 2}
    for kind, seeds in found.items():
        for reconstructed, *generated in seeds:
            assert all(stage["fid"]["mean"] > reconstructed["fid"]["mean"] for stage in generated), kind
    line = f"{ROOT / 'results/bandai_namco'} --output {tmp_path / 'a.png'}"
    assert call(evaluations.main, line) == 0 and (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    shutil.copytree(ROOT / "results/bandai_namco", tmp_path / "by_midpoint")
    assert evaluations.read(tmp_path / "by_midpoint") == found
    with pytest.raises(BadInput, match="no records"):
        evaluations.read(tmp_path)


def test_the_picture_of_speed_is_of_a_record_of_the_study(tmp_path, capsys):
    record, picture = ROOT / "results/one_step/demo_MARDM.json", tmp_path / "a.png"
    assert call(speed.main, f"{record} --output {picture}") == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    fields = json.loads(record.read_text("utf-8"))
    for content, line in {
        record.read_text("utf-8")[:-9]: "is no record of the study: take one from --record_dir",
        "[]": "is no record of the study",
        json.dumps(fields | {"clips": "many"}): "is no record of the study",
        json.dumps(fields | {"cells": {}}): "holds no cell rounds-N/random/midpoint or onestep",
    }.items():
        (tmp_path / "record.json").write_text(content)
        assert call(speed.main, f"{tmp_path / 'record.json'} --output {picture}") == 2
        assert line in capsys.readouterr().err
    assert call(speed.main, f"nowhere.json --output {tmp_path / 'a.jpg'}") == 2
    assert "written as .png, .pdf or .svg" in capsys.readouterr().err


def test_attention_is_measured_where_the_tokens_lie(monkeypatch):
    """On the CPU, also where there is a GPU."""
    asked = []
    monkeypatch.setattr(attention, "start", lambda machine: asked.append(machine.device))
    monkeypatch.setattr(attention, "Bench", lambda *_: sys.exit(9))
    with pytest.raises(SystemExit):
        attention.main(["--ae_names", "AE"])
    assert asked == ["cpu"]


def test_every_cell_of_the_study_is_one_that_a_generator_draws():
    mardm = SimpleNamespace(DiffMLPs=DiffMLPs_SiT, onestep=OneStepHead(6, 16, 1, 8))
    table = cells(SamplingConfig(18, 2.5, sampler="midpoint", sampler_steps=4, order="random", refine=0))
    assert {how.sampler for how in table.values()} == {"dopri5", "midpoint", "heun", "euler", "onestep"}
    for how in table.values():
        assert resolve_sampling(how, mardm) == how


def test_differences_are_paired_over_seeds():
    def seed(*fids):
        return [{measure: {"mean": fid} for measure in evaluations.PAIRED} for fid in fids]

    grid, latents = [seed(0, 1 + i, 2 + i) for i in (0, 5)], [seed(0, i, 3 + i) for i in (0, 5)]
    lines = evaluations.differences(grid, latents).splitlines()[2:]
    first = {title: value for title, value in (line.strip("| ").split(" | ")[:2] for line in lines)}
    assert list(first.values()) == [
        f"{x} ± 0.000" for x in ("-1.000", "+1.000", "+1.000", "+3.000", "+2.000")
    ]
    grid[1] = seed(0, 0, 2)  # latents - grid: -1 and +5
    assert "| +2.000 ± 38.1" in evaluations.differences(grid, latents)  # 12.706 x 3 sqrt(2) / sqrt(2)
