"""An evaluation of fewer clips than its measures need says so, and claims no interval."""

import json
import shutil

import evaluation_AE
from tests.tiny import call, where


def test_few_clips_have_no_r_precision_and_no_interval_over_clips(world, tmp_path, capsys):
    home = tmp_path / "home"
    shutil.copytree(world, home)
    split = home / "datasets/Demo/test.txt"
    ids = split.read_text().split()
    for n in (3, 1):
        split.write_text("\n".join(ids[:n]))
        assert call(evaluation_AE.main, f"--name AE {where(home)} --repeat_times 2") == 0
        printed = capsys.readouterr().out
        assert "R-precision is left out: it needs 32 clips" in printed
        assert "no evaluator" not in printed
        record = json.loads((home / "checkpoints/Demo/AE/eval/eval.json").read_text())
        halves = record["rows"]["reconstruction"]["interval"]["mpjpe"]
        assert halves["half_clips"] is None
        if n == 3:
            assert "Reconstruction FID = " in printed and "+- n/a (n=3" in printed
    assert "not measured: two clips are needed (n=1)" in printed
