"""Evaluations during the training of a generator: over how many drawings, and what is said of the weights."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import train_MARDM
from experiments import best_of
from tests.tiny import PAIR, TRAIN_MARDM, call, different_tensors, linked, where
from utils.eval_utils import EvaluationRun, Metrics
from utils.training.training_loop import Progress


class Noted:
    """An evaluation whose figures are its drawings' numbers."""

    def __init__(self, repeats):
        self.config = SimpleNamespace(repeat_times=repeats)

    def real(self, repeat):
        return f"real {repeat}"

    def generated(self, mardm, ae, sampling, repeat):
        return f"{mardm} {ae} {sampling} {repeat}"

    def compare(self, real, pred, repeat):
        assert (real, pred) == (f"real {repeat}", f"generator ae sampling {repeat}")
        return Metrics(fid=0.1 + repeat, n_pred=78)


def test_an_evaluation_is_the_mean_over_its_drawings():
    one, four = (train_MARDM.judge(Noted(n), "generator", "ae", "sampling") for n in (1, 4))
    assert one == Metrics(fid=0.1, n_pred=78).as_dict()
    assert four["fid"] == pytest.approx(1.6) and four["n_pred"] == 78
    assert four["top1"] is None and four["kid"] is None


def test_the_best_weights_are_those_of_the_lowest_mean_and_the_last_line_says_which(
    world, tmp_path, monkeypatch, capsys
):
    for run in ("AE", "text_mot_match", "text_mot_match_clip"):
        linked(world / f"checkpoints/Demo/{run}", tmp_path / f"Demo/{run}")
    measured, compare = [], EvaluationRun.compare

    def noted(*given):
        measured.append(compare(*given))
        return measured[-1]

    monkeypatch.setattr(EvaluationRun, "compare", noted)
    flags = f"{where(world, tmp_path)} --name MARDM --need_evaluation --eval_repeats 3 {TRAIN_MARDM}"
    assert call(train_MARDM.main, flags) == 0
    fids = [one.fid for one in measured]
    assert len(fids) == 6 and len(set(fids[:3])) == 3  # two epochs of three drawings, none like another
    best = torch.load(tmp_path / "Demo/MARDM/model/net_best_fid.tar", weights_only=True)["best"]
    means = [sum(fids[:3]) / 3, sum(fids[3:]) / 3]
    assert best["fid"] == pytest.approx(min(means), rel=1e-12)
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith(f"kept: the weights of step {best['total_it']}, of the lowest FID on val")
    assert last.endswith("--checkpoint latest uses the last ones, of step 8")

    # neither the weights nor the first drawing depend on how many follow
    latest = "Demo/MARDM/model/latest.tar"
    assert different_tensors(tmp_path / latest, world / "checkpoints" / latest) == []
    single = torch.load(world / "checkpoints/Demo/MARDM/model/net_best_fid.tar", weights_only=True)["best"]
    assert single["fid"] == min(fids[0], fids[3])


def test_without_an_evaluation_the_last_weights_are_kept():
    line = train_MARDM.kept_weights(Progress(ep=2, total_it=40))
    assert line == "kept: the last weights, of step 40; no evaluation chose others"


def test_the_best_of_several_is_the_one_that_fits(world, tmp_path, monkeypatch):
    """Here the evaluator that chooses is also the one that judges."""
    noted, best = [], best_of.best

    def noting(motions, misfit):
        noted.append((misfit, motions, best(motions, misfit)))
        return noted[-1][-1]

    monkeypatch.setattr(best_of, "best", noting)
    flags = f"{where(world)} --name MARDM {PAIR} --time_steps 4 --candidates 4"
    flags += f" --ranker {world / 'checkpoints'}"
    assert call(best_of.main, f"{flags} --repeat_times 2 --record best_of") == 0
    record = json.loads((world / "checkpoints/Demo/MARDM/eval/best_of.json").read_text())
    names = list(record["rows"])[1:]
    assert names == ["first", "best of 2", "best of 4"]
    for i, (misfit, motions, chosen) in enumerate(noted):
        repeat, size = divmod(i, 3)
        assert len(misfit) == len(motions) == 2**size and np.ptp(misfit, axis=0).all() == (size > 0)
        matching = record["rows"][names[size]]["repeats"][repeat]["matching"]
        assert matching == pytest.approx(misfit.min(axis=0).mean(), rel=1e-4)
        for clip, k in enumerate(misfit.argmin(axis=0)):
            assert chosen.joints[clip] is motions[k].joints[clip]

    prompts, out = tmp_path / "prompts.txt", tmp_path / "blind"
    prompts.write_text("a person jumps\na person waves\n")
    assert call(best_of.main, f"{flags} --text_path {prompts} --groups 1 --output_dir {out}") == 0
    assert Image.open(out / "02.png").size == (10 * 128, 2 * 128)
    order = json.loads((out / "order.json").read_text())
    assert [sorted(rows) for rows in order] == [["best of 4", "first"]] * 2
