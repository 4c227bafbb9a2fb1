"""The law of fast generation: drawing only the tokens that leave the mask gives the motions of drawing every
hidden token in every round (benchmarks/reference.py), with noise keyed by motion, token and diffusion step.
float64, weights that are not zero, lengths from one token up.
"""

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.reference import draw_everything
from models import onednn
from models.AE import make_ae
from models.draws import SamplingNoise
from models.MARDM import MARDM_models
from models.masking import lengths_to_mask, reveal_rounds, tokens_by_round
from models.OneStep import OneStepHead
from models.sampling import SamplingConfig
from tests.test_MARDM import fill_zero_weights
from utils.training.monitoring import neighbour_attention

LENGTHS = torch.tensor([1, 9, 2, 5])
HOW = SamplingConfig(time_steps=7, cfg=3.0, sampler_steps=2, snap="off")


def build(name, **options):
    """(generator, autoencoder, text), small and float64."""
    torch.manual_seed(0)
    ae = make_ae("FSQ_AE_Small" if name.startswith("FSQ") else "AE_Model", width=32)
    mardm = MARDM_models[name](ae_dim=32, target_dim=ae.target_dim, text_dim=16, **options)
    mardm.set_target_stats(0.1 * torch.ones(ae.target_dim), torch.full((ae.target_dim,), 0.5))
    if "DDPM" in name:
        mardm.DiffMLPs.reschedule(50, 5)
    text = torch.randn(len(LENGTHS), 16, dtype=torch.float64)
    return fill_zero_weights(mardm).double().eval(), ae.double().eval(), text


@pytest.fixture(scope="module", params=["MARDM-SiT-XS", "FSQ-MARDM-SiT-XS"])
def sit(request):
    return build(request.param)


@pytest.fixture(scope="module", params=["MARDM-DDPM-XS", "FSQ-MARDM-DDPM-XS"])
def ddpm(request):
    return build(request.param)


def both(made, sampling, atol=1e-10, **edit):
    """Draw in both ways, compare, return the motions."""
    mardm, ae, text = made
    expected = draw_everything(mardm, ae, text, LENGTHS, sampling, edit=tuple(edit.values()))
    if edit:
        found = mardm.edit(ae, text, LENGTHS, edit["targets"], edit["sections"], sampling)
    else:
        found = mardm.generate(ae, text, LENGTHS, sampling)
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)
    assert found[1].std() > 0.1  # motions, not zeros
    return found


@pytest.mark.parametrize("sampler", ["euler", "midpoint", "heun"])
@pytest.mark.parametrize("cfg", [1.0, 0.0, 4.5])
def test_every_fixed_step_solver(sit, sampler, cfg):
    both(sit, replace(HOW, sampler=sampler, cfg=cfg))


@pytest.mark.parametrize("cfg", [1.0, 4.5])
def test_ddpm_with_noise_of_its_own_at_each_step(ddpm, cfg):
    plain = both(ddpm, replace(HOW, sampler_steps=None, cfg=cfg))
    still = both(ddpm, replace(HOW, sampler_steps=None, cfg=cfg, temperature=0.0))
    assert not torch.equal(plain, still)  # the steps' noise was used


@pytest.mark.parametrize(
    "change",
    [
        {"hard_pseudo_reorder": True},
        {"snap": "step"},
        {"snap": "end"},
        {"temperature": 0.5},
        {"time_steps": 1},
        {"time_steps": 18},
        {"hard_pseudo_reorder": True, "snap": "step"},
    ],
    ids=lambda change: " ".join(f"{key}={value}" for key, value in change.items()),
)
def test_every_option(sit, change):
    mardm, ae, text = sit
    plain, changed = mardm.generate(ae, text, LENGTHS, HOW), both(sit, replace(HOW, **change))
    same = "hard_pseudo_reorder" in change or ("snap" in change and mardm.kind == "continuous")
    assert same or (plain - changed).abs().max() > 1e-6


def test_dopri5_within_its_tolerance(sit):
    """It shares its step sizes among the rows of a call, and the calls differ."""
    both(sit, replace(HOW, sampler="dopri5", sampler_steps=None), atol=0.02)


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_edits(sit, cfg):
    mardm, ae, _ = sit
    targets = ae.quantize(torch.rand(len(LENGTHS), 9, mardm.target_dim, dtype=torch.float64) + 0.1)
    inside = lengths_to_mask(LENGTHS, 9)
    sections = torch.rand(inside.shape, generator=torch.Generator().manual_seed(3)) < 0.5
    edited = both(sit, replace(HOW, cfg=cfg), targets=targets, sections=sections)
    kept = inside & ~sections
    assert torch.equal(edited[kept], targets[kept])
    assert not torch.equal(edited[sections & inside], targets[sections & inside])
    nothing = both(sit, HOW, targets=targets, sections=torch.zeros_like(sections))
    assert torch.equal(nothing, targets * inside[..., None])


@pytest.mark.parametrize("name", ["FSQ-MARDM-SiT-XS", "MARDM-DDPM-XS", "FSQ-MARDM-Softmax-XS"])
@pytest.mark.parametrize("snap", ["step", "off"])
def test_refining_draws_every_other_token_anew_then_those_between(name, snap):
    """As two edits of one round do, with noise that no token had before; a motion alone as in the batch."""
    mardm, ae, text = build(name, **({"levels": (5,) * 5} if "Softmax" in name else {}))
    how = replace(HOW, sampler_steps=None, snap=snap)
    noise, odd = SamplingNoise(how.seed, range(4)), torch.arange(9).expand(4, -1) % 2 == 1
    expected = mardm.generate(ae, text, LENGTHS, how, noise)
    for k, sections in enumerate((~odd, odd, ~odd, odd), start=1):
        once = replace(how, time_steps=1)
        expected = mardm.edit(ae, text, LENGTHS, expected, sections, once, noise.anew(k))
    refined = replace(how, refine=2)
    found = mardm.generate(ae, text, LENGTHS, refined)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
    alone = mardm.generate(ae, text[1:2], LENGTHS[1:2], refined, [1])
    torch.testing.assert_close(alone[0], found[1], atol=1e-10, rtol=0)
    assert "then every token 2 more times" in mardm.describe_sampling(refined)

    both_noises = [
        one.rows(torch.zeros(9, dtype=int), torch.arange(9), (2,)) for one in (noise, noise.anew(1))
    ]
    assert len(torch.cat(both_noises).unique()) == 36
    targets, sections = ae.tokenize(torch.randn(4, 36, ae.dim).double())[1], odd & lengths_to_mask(LENGTHS, 9)
    edited = mardm.edit(ae, text, LENGTHS, targets, sections, refined)
    kept = lengths_to_mask(LENGTHS, 9) & ~sections
    assert torch.equal(edited[kept], targets[kept]) and not torch.equal(edited[sections], targets[sections])


def test_the_transformer_rests_in_a_round_where_nothing_leaves(sit):
    mardm, ae, text = sit
    calls = []
    hook = mardm.input_process.register_forward_hook(lambda *_: calls.append(1))
    try:
        mardm.generate(ae, text[:1], torch.tensor([5]), replace(HOW, time_steps=18), keys=[0])
        assert len(calls) == 5  # a token at a time; the other 13 rounds cost nothing
        calls.clear()
        targets = torch.zeros(1, 5, mardm.target_dim, dtype=torch.float64)
        mardm.edit(ae, text[:1], torch.tensor([5]), targets, torch.zeros(1, 5, dtype=torch.bool), HOW)
        assert calls == []
    finally:
        hook.remove()


def test_tokens_go_round_after_round():
    leaves = reveal_rounds(lengths_to_mask(LENGTHS, 9), torch.rand(4, 9), 7)
    tokens, counts, most = tokens_by_round(leaves, 7)
    assert sum(counts) == LENGTHS.sum()
    for r, (rows, columns, numbers) in enumerate(zip(*(x.split(counts) for x in tokens))):
        mask = torch.zeros(leaves.shape, dtype=torch.bool)
        mask[rows, columns] = True
        assert torch.equal(mask, leaves == r) and most[r] == mask.sum(dim=1).max()
        for clip in range(len(leaves)):
            assert numbers[rows == clip].tolist() == list(range(mask[clip].sum()))


class Waits(TorchDispatchMode):
    """Notes what makes the host wait for a device's numbers."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in {"_local_scalar_dense", "nonzero", "equal", "is_nonzero", "item", "unique", "lift_fresh"}:
            self.seen.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("sampler", ["euler", "midpoint", "heun"])
def test_no_round_waits_for_the_device(sit, sampler):
    """From the first call of the Transformer on. lift_fresh: a tensor made of a Python number, copied."""
    mardm, ae, text = sit
    mode, entered = Waits(), []

    def enter(*_):
        if not entered:
            entered.append(mode.__enter__())

    hook = mardm.input_process.register_forward_pre_hook(enter)
    try:
        mardm.generate(ae, text, LENGTHS, replace(HOW, sampler=sampler))
    finally:
        hook.remove()
        if entered:
            mode.__exit__(None, None, None)
    assert entered
    assert mode.seen == []


@pytest.fixture
def single():
    """float32 copies: precision is about them."""
    mardm, ae, text = build("FSQ-MARDM-SiT-XS")
    return mardm.float(), ae.float(), text.float()


def seen_dtypes(mardm):
    """part -> dtypes of what comes out of it, collected by hooks."""
    seen = {}
    net = mardm.DiffMLPs.net
    parts = {
        "time": net.time_embed,
        "head": net,
        "head layer": net.res_blocks[0].mlp[0],
        "residual stream": net.res_blocks[0],
        "attention": mardm.MARTransformer[0].attn.proj,
    }
    for name, part in parts.items():
        seen[name] = set()
        part.register_forward_hook(lambda _, given, out, name=name: seen[name].add(out.dtype))
    return seen


LOW = {
    "time": {torch.float32},
    "head": {torch.float32},
    "head layer": {torch.bfloat16},
    "residual stream": {torch.float32},
    "attention": {torch.bfloat16},
}


def test_bfloat16_draws_nearly_the_same_motions_and_leaves_float32_what_must_be(single):
    mardm, ae, text = single
    sampling, before = HOW, {k: v.clone() for k, v in mardm.state_dict().items()}
    exact = mardm.generate(ae, text, LENGTHS, sampling)
    mardm.set_precision(torch.bfloat16)
    seen = seen_dtypes(mardm)
    low = mardm.generate(ae, text, LENGTHS, sampling)
    assert low.dtype == torch.float32
    assert seen == LOW
    assert 0 < (low - exact).abs().max() < 0.1 * exact.std()
    assert all(p.dtype == torch.float32 for p in mardm.parameters())
    assert all(torch.equal(v, before[k]) for k, v in mardm.state_dict().items())
    mardm.set_precision(torch.float32)
    assert torch.equal(mardm.generate(ae, text, LENGTHS, sampling), exact)


def average(weight):
    torch._foreach_lerp_([weight], [-weight], 1.0)  # as the moving average is kept


def fused_step(weight):
    """It does not raise the weight's version."""
    weight.grad = torch.ones_like(weight)
    torch.optim.AdamW([weight], lr=1.0, fused=True).step()


def load(weight):
    weight.copy_(-weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("change, frozen", [(fused_step, False), (average, True), (load, True)])
def test_what_is_kept_for_drawing_follows_the_weights(single, dtype, change, frozen):
    """What was prepared for one call is not what the next one uses, if training went on in between."""
    mardm, ae, text = single
    mardm.requires_grad_(not frozen)
    mardm.set_precision(dtype)
    first = mardm.generate(ae, text, LENGTHS, HOW)
    assert torch.equal(mardm.generate(ae, text, LENGTHS, HOW), first)
    with torch.no_grad():
        change(mardm.DiffMLPs.net.res_blocks[0].mlp[0].weight)
    changed = mardm.generate(ae, text, LENGTHS, HOW)
    assert not torch.equal(changed, first)
    copied = copy.deepcopy(mardm)
    assert torch.equal(copied.generate(ae, text, LENGTHS, HOW), changed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_may_generate_at_once(single, dtype):
    mardm, ae, text = single
    mardm.set_precision(dtype)
    wanted = mardm.generate(ae, text, LENGTHS, HOW)
    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(lambda _: mardm.generate(ae, text, LENGTHS, HOW), range(12)))
    assert {p.dtype for p in mardm.parameters()} == {torch.float32}
    assert all("forward" not in vars(module) for module in mardm.modules())
    assert all(torch.equal(one, wanted) for one in drawn)


def test_weights_laid_out_for_onednn_change_rounding_only(single, monkeypatch):
    mardm, ae, text = single
    packed = mardm.generate(ae, text, LENGTHS, HOW)
    monkeypatch.setattr(onednn, "usable", lambda *_: False)
    plain = mardm.generate(ae, text, LENGTHS, HOW)
    torch.testing.assert_close(packed, plain, atol=1e-4, rtol=1e-4)
    assert all("forward" not in vars(module) for module in mardm.modules())


def test_bfloat16_trains_with_float32_weights_gradients_and_loss(single):
    mardm, ae, text = single
    latents, targets = ae.tokenize(torch.randn(4, 40, 67))

    def loss():
        torch.manual_seed(1)
        return mardm.forward_loss(latents, targets, text, torch.tensor([10, 4, 7, 10]))

    exact = loss()
    mardm.set_precision(torch.bfloat16)
    seen = seen_dtypes(mardm)
    low = loss()
    low.backward()
    assert low.dtype == torch.float32
    assert seen == LOW
    assert low.item() == pytest.approx(exact.item(), rel=0.02)
    assert {p.grad.dtype for p in mardm.parameters() if p.grad is not None} == {torch.float32}


@pytest.mark.slow
def test_compiled_parts_draw_and_train_as_eager_ones(single):
    mardm, ae, text = single
    names, sampling = list(mardm.state_dict()), HOW
    latents, targets = ae.tokenize(torch.randn(4, 40, 67))

    def loss():
        torch.manual_seed(1)
        return mardm.forward_loss(latents, targets, text, torch.tensor([10, 4, 7, 10]))

    mardm.onestep = OneStepHead.from_teacher(mardm.DiffMLPs)
    onestep = replace(HOW, sampler="onestep", sampler_steps=None)
    drawn, lost = [mardm.generate(ae, text, LENGTHS, how) for how in (sampling, onestep)], loss()
    try:
        mardm.compile_parts()
    except ValueError as error:
        pytest.skip(str(error))
    assert all(head.net._compiled_call_impl for head in mardm._heads())  # what drawing calls
    for how, before in zip((sampling, onestep), drawn):
        torch.testing.assert_close(mardm.generate(ae, text, LENGTHS, how), before, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(loss(), lost, atol=1e-5, rtol=1e-5)
    mardm.onestep = None
    assert list(mardm.state_dict()) == names
    with torch.no_grad():  # after the blocks were compiled without hooks, as in a validation
        mardm.eval()
        loss()
        assert 0 < neighbour_attention(mardm, latents, text, torch.tensor([10, 4, 7, 10])) < 1


def test_where_nothing_compiles_one_line_says_so(single, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("no compiler here\nsecond line")

    monkeypatch.setattr(torch, "compile", refuse)
    with pytest.raises(ValueError, match="C\\+\\+ compiler.*no compiler here") as error:
        single[0].compile_parts()
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cuda_rounds_do_not_wait(single, dtype):
    mardm, ae, text = (part.to("cuda") for part in single)
    mardm.set_precision(dtype)
    hook = mardm.input_process.register_forward_pre_hook(lambda *_: torch.cuda.set_sync_debug_mode("error"))
    try:
        mardm.generate(ae, text, LENGTHS.to("cuda"), HOW)
    finally:
        torch.cuda.set_sync_debug_mode("default")
        hook.remove()
