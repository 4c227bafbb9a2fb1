"""What benchmarks/gpu.sh shows without a GPU: its comparison, of the CPU with itself, and its refusal."""

import pytest
import torch

from benchmarks import bench_generate, gpu
from benchmarks.training_reference import plain_products
from models.sampling import SamplingConfig


@pytest.fixture(scope="module")
def result():
    with torch.no_grad():
        return gpu.outputs(torch.device("cpu"), torch.float64)


def test_the_cpu_agrees_with_itself(result):
    with torch.no_grad():
        again = gpu.compare(gpu.outputs(torch.device("cpu"), torch.float64), result, torch.float64)
    assert len(again) > 15 and all(row["ok"] and row["difference"] < 1e-12 for row in again)
    assert all(x.isfinite().all() and x.abs().max() > 1e-6 for x in result.values())  # no network is idle


@pytest.mark.parametrize("name", ["Transformer", "whole generation", "SiT, gradients"])
def test_a_difference_fails(result, name):
    for wrong in (result[name] * (1 + 1e-6), result[name] * float("nan"), result[name].flatten()[:1]):
        rows = gpu.compare(result | {name: wrong}, result, torch.float64)
        assert [row["what"] for row in rows if not row["ok"]] == [name]
    text = gpu.page(rows, [], [], "a machine")
    assert text.count("**FAILED**") == 1 and f"| {name} | float64 |" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path, capsys):
    assert not gpu.main(["--output", str(tmp_path / "gpu")])
    assert len(capsys.readouterr().out.splitlines()) == 1 and not list(tmp_path.iterdir())


def test_layers_that_are_computed_together_are_in_the_account():
    mardm, ae = bench_generate.build("XS", "FSQ", torch.device("cpu"))
    sampling = SamplingConfig(time_steps=1, sampler="onestep", sampler_steps=1, refine=0)
    head, begin = mardm.head(sampling).net, mardm.input_process.poseEmbedding
    with plain_products(), bench_generate.Account([mardm, ae], head, begin=begin) as account:
        mardm.generate(ae, torch.randn(1, 512), torch.tensor([3]), sampling)
    together = [block.adaLN_modulation[1] for block in (*head.res_blocks, head.final_layer)]
    together += [layer for block in mardm.MARTransformer for layer in block.attn.children()]
    assert account.rows == 3 and len(together) > 5
    assert {layer for layer in together if isinstance(layer, torch.nn.Linear)} <= account.of_round.keys()


def test_timings_run_small_and_a_failure_is_a_row(monkeypatch):
    """On the CPU in place of the GPU, XS in place of XL, not compiled; one job fails."""
    monkeypatch.setattr(gpu, "MODES", [("fp32", False)])
    monkeypatch.setattr(gpu, "TOKENS", 2)
    monkeypatch.setattr(gpu, "training", lambda *given: 1 / 0)
    rows = list(gpu.timings(torch.device("cpu"), "XS", ("XS",), batches=(1, 2)))
    assert [row["what"] for row in rows] == [
        *2 * ("generation, XS", "generation, XS, one-step head"),
        "training step, XS",
    ]
    assert [row["ok"] for row in rows] == [True] * 4 + [False] and "ZeroDivision" in rows[-1]["error"]
    assert gpu.page([], [], rows, "a machine").count("**FAILED**") == 1


def test_the_collectives_run_under_torchrun():
    row = gpu.collectives("cpu", 2)
    assert row["ok"], row["error"]
