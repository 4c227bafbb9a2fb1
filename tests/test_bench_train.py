"""The training benchmark: its reference trains the same thing, and its figures follow from what it counts."""

import json
from functools import partial

import pytest
import torch

from benchmarks import bench_train
from benchmarks.bench_train import GeneratorBench, Setup
from benchmarks.training_reference import repeat_then_gather_loss, text_tower
from models.counter_rng import Purpose, sample_keys
from models.MARDM import MARDM_models

QUICK = "--quick --threads 1 --batch 3 --ae_batch 3"


@pytest.fixture(scope="module")
def mardm():
    torch.manual_seed(0)
    return MARDM_models["FSQ-MARDM-SiT-XS"](ae_dim=16, target_dim=5, dropout=0.0)


def test_the_reference_draws_from_the_same_rows(mardm, monkeypatch):
    """Repeating before gathering gives the head the very targets and conditions that ours gives it."""
    seen = []
    monkeypatch.setattr(mardm.DiffMLPs, "loss", lambda rows, z, *_: seen.append((rows, z)) or z.sum(dim=1))
    torch.manual_seed(1)
    latents, targets, text = torch.randn(4, 16, 9), torch.randn(4, 9, 5), torch.randn(4, 512)
    m_lens, keys = torch.tensor([9, 3, 7, 1]), sample_keys(torch.arange(4), Purpose.TRAINING, 0)
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)  # the decoys are a choice of their own
    mardm.forward_loss(
        latents, targets, text, m_lens, keys=keys, random_replacements=torch.zeros_like(latents)
    )
    repeat_then_gather_loss(mardm, latents, targets, text, m_lens, keys)
    ours, reference = (torch.cat(pair, dim=1) for pair in seen)
    assert len(ours) == len(reference) > 4
    torch.testing.assert_close(ours.sort(dim=0)[0], reference.sort(dim=0)[0])


def test_a_quick_run_counts_and_reports(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench_train, "text_tower", partial(text_tower, layers=1))
    bench_train.main([*QUICK.split(), "--output", str(tmp_path / "bench.json")])
    record = json.loads((tmp_path / "bench.json").read_text())
    autoencoder, generator = record["cases"]
    assert [autoencoder["what"], generator["what"]] == ["AE", "XS"]
    modes = generator["modes"]
    assert 0 <= generator["data_wait_share"] < 1
    for mode in modes.values():
        assert mode["seconds"] > 0 and mode["share_of_matmul_rate"] > 0 and len(mode["flops"]) == 2
    # Nothing is encoded where tokens are given; MARDM's encoder runs backwards, too, and its text tower.
    encoding = modes["ours"]["flops"][0] - modes["ours, tokens given"]["flops"][0]
    assert encoding > 0
    assert modes["no text"]["flops"][0] > modes["ours"]["flops"][0] + encoding
    assert modes["reference"]["flops"][0] - modes["no text"]["flops"][0] > 2 * 4 * 77 * 3e6  # its layer
    assert modes["reference"]["flops"] == modes["reference, anomaly"]["flops"]
    assert "x ours" in capsys.readouterr().out


def test_flops_are_those_of_the_head(tmp_path):
    """Three products for each weight of a linear layer and row: one forwards, two backwards."""
    bench = GeneratorBench(Setup(batch=3, width=16, rounds=1), "XS", torch.device("cpu"))
    (given,) = bench.rounds()
    rows = []
    hook = bench.mardm.DiffMLPs.net.register_forward_hook(lambda _, inputs, out: rows.append(len(out)))
    (flops,) = bench_train.flops_of(lambda given: bench.ours(given, tokens=True), [given])
    hook.remove()
    weights = sum(p.numel() for name, p in bench.mardm.DiffMLPs.net.named_parameters() if p.ndim == 2)
    head = 3 * 2 * weights * rows[0]
    assert 0.85 * head < flops < 1.3 * head
