"""Classification on the grid: what the head draws is its softmax, in closed forms; the real commands."""

import itertools
import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import distill_MARDM
import edit
import evaluation_MARDM
import sample
import train_AE
import train_MARDM
from models.AE import make_ae
from models.draws import SamplingNoise, TrainingDraws
from models.MARDM import MARDM_models
from models.sampling import SamplingConfig, resolve_sampling
from models.Softmax import COORDINATES, SoftmaxHead, pick
from tests.test_MARDM import fill_zero_weights
from tests.tiny import TRAIN_MARDM, call, different_tensors, where

LEVELS, H = (3, 4, 3), 8
PLAIN = SamplingConfig(cfg=1)


def make_head(coordinates="sequential"):
    """A small head in float64, whose weights are far from uniform."""
    torch.manual_seed(0)
    head = fill_zero_weights(SoftmaxHead(3, H, depth=2, width=16, levels=LEVELS, coordinates=coordinates))
    with torch.no_grad():
        for layer in (head.net.final_layer.linear, *head.earlier):
            layer.weight.mul_(60)
    return head.double().eval()


@pytest.fixture(params=COORDINATES)
def head(request):
    return make_head(request.param)


def grid(head):
    """All codes [36,3]."""
    return head.grid.digits_to_codes(torch.tensor(list(itertools.product(*map(range, LEVELS)))))


def shares(head, z):
    """p(code | z) of all codes [36], of one condition [H]."""
    codes = grid(head)
    return (-head.loss(codes, z.expand(len(codes), -1))).exp()


def draws(n):
    """Noise [n,3] as generation makes it."""
    noise = SamplingNoise(0, range(n))
    return noise.rows(torch.arange(n), torch.zeros(n, dtype=torch.long), (3,)).double()


@torch.no_grad()
def test_the_shares_of_all_codes_add_up_to_one(head):
    torch.testing.assert_close(shares(head, torch.randn(H, dtype=torch.float64)).sum().item(), 1.0)


@torch.no_grad()
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_a_new_head_is_uniform(coordinates):
    fresh = SoftmaxHead(3, H, depth=2, width=16, levels=LEVELS, coordinates=coordinates)
    loss = fresh.loss(grid(fresh), torch.randn(36, H))
    torch.testing.assert_close(loss, torch.full((36,), sum(math.log(n) for n in LEVELS)))


@torch.no_grad()
def test_only_a_sequential_head_knows_dependent_coordinates():
    z = torch.randn(H, dtype=torch.float64)
    for coordinates in COORDINATES:
        joint = shares(make_head(coordinates), z).reshape(LEVELS)
        product = torch.einsum("a,b,c->abc", joint.sum((1, 2)), joint.sum((0, 2)), joint.sum((0, 1)))
        assert ((joint - product).abs().max() < 1e-12) == (coordinates == "independent")


@torch.no_grad()
def test_the_loss_is_that_of_its_formula(head):
    """logits_i = V_i silu(h + sum of E_j[c_j] over j < i)."""
    z, digits = torch.randn(H, dtype=torch.float64), (2, 1, 0)
    h, loss = head._hidden(z[None])[0], 0.0
    for i, (layer, digit) in enumerate(zip(head.classes, digits)):
        given = h + sum(table.weight[c] for table, c in zip(head.earlier, digits[:i]))
        loss -= (layer.weight @ (given * given.sigmoid()) + layer.bias).log_softmax(dim=0)[digit]
    codes = head.grid.digits_to_codes(torch.tensor([digits]))
    torch.testing.assert_close(head.loss(codes, z[None])[0], loss)


@torch.no_grad()
def test_codes_are_drawn_as_often_as_the_softmax_says(head):
    n, z = 20_000, torch.randn(H, dtype=torch.float64)
    drawn = head.sample(z.expand(n, -1), None, draws(n), PLAIN)
    assert torch.equal(drawn, head.grid.snap(drawn))
    index = head.grid.codes_to_indices(drawn)
    counts = torch.bincount(index, minlength=36)
    expected = torch.zeros(36, dtype=torch.float64)
    expected[head.grid.codes_to_indices(grid(head))] = n * shares(head, z)
    assert expected.max() > 3 * n / 36  # not uniform
    chi2 = ((counts - expected) ** 2 / expected.clamp(min=1)).sum()
    assert chi2 < 36 + 5 * math.sqrt(2 * 36)


@torch.no_grad()
def test_guidance(head):
    """Scale 1 is the conditional, 0 the unconditional model; any other extrapolates from their logits."""
    z, null = torch.randn(2, 50, H, dtype=torch.float64)
    noise = draws(50)
    plain = head.sample(z, None, noise, PLAIN)
    near = replace(PLAIN, cfg=1 + 1e-12)
    assert torch.equal(head.sample(z, null, noise, near), plain)
    assert torch.equal(
        head.sample(z, null, noise, replace(PLAIN, cfg=0.0)), head.sample(null, None, noise, PLAIN)
    )
    guided = head.sample(z, null, noise, replace(PLAIN, cfg=3.0, temperature=0))[:, 0]
    first = [head._logits(0, head._hidden(x)) for x in (z, null)]
    wanted = (first[1] + 3 * (first[0] - first[1])).argmax(dim=-1)
    assert torch.equal(guided, head.grid.digits_to_codes(wanted[:, None] * torch.ones(3).long())[:, 0])


@torch.no_grad()
def test_a_low_temperature_takes_the_likeliest_class():
    logits = torch.randn(500, 5, dtype=torch.float64)
    u = torch.rand(500, dtype=torch.float64)
    for temperature in (0, 1e-9):
        assert torch.equal(pick(logits, u, temperature), logits.argmax(dim=-1))
    assert not torch.equal(pick(logits, u, 1), logits.argmax(dim=-1))
    sure = 100 * logits.float()
    assert torch.equal(pick(sure, u.float(), 2e-38), sure.argmax(dim=-1))  # infinite when divided by it
    assert pick(logits[:2], torch.tensor([0.0, 1.0]), 50).tolist() == [0, 4]


@torch.no_grad()
def test_a_damaged_head_draws_no_motion(head):
    head.classes[1].weight[0, 0] = float("nan")
    assert head.sample(torch.randn(4, H).double(), None, draws(4), PLAIN).isnan().any(dim=1).all()


@pytest.fixture(params=COORDINATES)
def pair(request):
    """(generator, its autoencoder), float64."""
    torch.manual_seed(0)
    ae = make_ae("FSQ_AE_Small", width=32)
    shape = {"ae_dim": 32, "target_dim": 5, "text_dim": 16, "levels": ae.fsq_levels}
    mardm = MARDM_models["FSQ-MARDM-Softmax-XS"](**shape, softmax_coordinates=request.param)
    return fill_zero_weights(mardm).double().eval(), ae.double().eval()


def test_a_prompt_gives_the_same_codes_alone_and_in_a_batch(pair):
    mardm, ae = pair
    text, m_lens = torch.randn(3, 16, dtype=torch.float64), torch.tensor([10, 4, 7])
    batch = mardm.generate(ae, text, m_lens, SamplingConfig(seed=1))
    assert torch.equal(ae.quantize(batch), batch) and batch.abs().sum() > 0
    alone = mardm.generate(ae, text[1:2], m_lens[1:2], SamplingConfig(seed=1), keys=[1])
    assert torch.equal(alone[0], batch[1, :4])
    assert not torch.equal(mardm.generate(ae, text, m_lens, SamplingConfig(seed=2)), batch)


def test_the_loss_asks_each_hidden_token_once_and_learns(pair):
    mardm, ae = pair
    latents, targets = ae.tokenize(torch.randn(2, 40, 67, dtype=torch.float64))
    text, m_lens = torch.randn(2, 16, dtype=torch.float64), torch.tensor([10, 10])
    hidden = torch.ones(2, 10, dtype=torch.bool)
    masks = {"masks": (hidden, torch.zeros_like(hidden), hidden)}
    assert mardm.summed_loss(latents, targets, text, m_lens, TrainingDraws(**masks))[1] == 20
    optimizer = torch.optim.Adam(mardm.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        loss = mardm.forward_loss(latents, targets, text, m_lens, **masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    unused = [name for name, p in mardm.named_parameters() if p.grad is None]
    assert unused == []


def test_samplers_of_diffusion_are_refused_and_its_own_is_taken(pair):
    mardm, _ = pair
    assert resolve_sampling(SamplingConfig(), mardm).sampler == "softmax"
    line = "18 rounds in random order, sampler softmax: 1 evaluation a draw, guided"
    assert mardm.describe_sampling(SamplingConfig()) == line
    with pytest.raises(ValueError, match="sampler midpoint.*softmax"):
        resolve_sampling(SamplingConfig(sampler="midpoint"), mardm)
    for name in ("auto", "softmax"):
        with pytest.raises(
            ValueError, match="softmax has no number of steps to choose: leave --sampler_steps out"
        ):
            resolve_sampling(SamplingConfig(sampler=name, sampler_steps=8), mardm)
    sit = MARDM_models["FSQ-MARDM-SiT-XS"](ae_dim=32, target_dim=5, text_dim=16)
    with pytest.raises(ValueError, match="sampler softmax.*midpoint"):
        resolve_sampling(SamplingConfig(sampler="softmax"), sit)


def test_bfloat16_draws_and_trains(pair):
    mardm, ae = (part.float() for part in pair)
    mardm.set_precision(torch.bfloat16)
    drawn = mardm.generate(ae, torch.randn(2, 16), torch.tensor([6, 6]))
    assert drawn.dtype == torch.float32 and torch.equal(ae.quantize(drawn), drawn)
    latents, targets = ae.tokenize(torch.randn(2, 40, 67))
    loss = mardm.forward_loss(latents, targets, torch.randn(2, 16), torch.tensor([10, 10]))
    assert loss.dtype == torch.float32 and loss.isfinite()


SOFTMAX = TRAIN_MARDM.replace("SiT", "Softmax")


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    """A home of runs with a generator of each form."""
    runs = tmp_path_factory.mktemp("softmax")
    for name in ("AE", "text_mot_match", "length_estimator"):
        shutil.copytree(world / "checkpoints/Demo" / name, runs / "Demo" / name)
    for name in COORDINATES:
        flags = f"{where(world, runs)} {SOFTMAX} --name {name} --softmax_coordinates {name} --need_evaluation"
        flags += " --head_width 64" if name == "independent" else ""
        assert call(train_MARDM.main, flags) == 0
    return runs


@pytest.mark.parametrize("name", COORDINATES)
def test_every_command_works_with_it(world, trained, tmp_path, name, capsys):
    flags = f"{where(world, trained)} --name {name} --time_steps 4"
    made = f"--export npy --output_dir {tmp_path}"
    assert call(sample.main, f"{flags} --text_prompt walk --motion_length 40 {made}") == 0
    assert "sampler softmax: 1 evaluation a draw, guided" in capsys.readouterr().out
    (motion,) = (tmp_path / f"{name}_Demo").glob("*.npy")
    assert np.isfinite(np.load(motion)).all()
    assert call(edit.main, f"{flags} --text_prompt walk -msec 0,20 --source_motion {motion} {made}") == 0
    assert call(evaluation_MARDM.main, f"{flags} --repeat_times 1 --temperature 0.8 --cfg 2") == 0
    report = json.loads((trained / f"Demo/{name}/eval/eval.json").read_text())
    assert "fid" in report["rows"]["generated"]["repeats"][0]
    state = torch.load(trained / f"Demo/{name}/model/latest.tar", weights_only=True)
    config = state["config"]
    assert len(state["mardm"]["DiffMLPs.net.input_proj.bias"]) == {"independent": 64, "sequential": 256}[name]
    assert config["softmax_coordinates"] == name and config["model"] == "FSQ-MARDM-Softmax-XS"
    assert torch.equal(state["target_stats"]["std"], torch.ones(6))  # classes are not standardised


def test_resume_is_exact(world, trained, tmp_path):
    shutil.copytree(trained / "Demo/AE", tmp_path / "Demo/AE")
    flags = f"{where(world, tmp_path)} {SOFTMAX} --name sequential"
    assert call(train_MARDM.main, f"{flags} --max_iters 5") == 0
    assert call(train_MARDM.main, f"{flags} --is_continue") == 0
    latest = "Demo/sequential/model/latest.tar"
    assert different_tensors(tmp_path / latest, trained / latest) == []


NEW = f"{SOFTMAX} --name new"
REFUSED = {
    "another form on resume": (
        train_MARDM,
        f"{SOFTMAX} --name sequential --is_continue --softmax_coordinates independent",
        "softmax_coordinates",
    ),
    "no FSQ": (train_MARDM, f"{NEW} --ae_name continuous --ae_model AE_Model", "needs a FSQ autoencoder"),
    "no such model": (train_MARDM, NEW.replace("FSQ-MARDM", "VQ_MARDM"), "FSQ-MARDM-Softmax-XS"),
    "a solver": (sample, "--name sequential --text_prompt walk --motion_length 40 --sampler heun", "softmax"),
    "distillation": (distill_MARDM, "--name sequential", "one evaluation already"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_sense_is_one_line(world, trained, capsys, case):
    script, line, wanted = REFUSED[case]
    if "continuous" in line:
        train = f"{where(world, trained)} --name continuous --model AE_Model --width 16 --batch_size 16"
        assert call(train_AE.main, f"{train} --max_iters 1 --epoch 1") == 0
    assert call(script.main, f"{where(world, trained)} {line}") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and wanted in error
