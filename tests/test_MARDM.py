"""The generator: attention, losses, batch invariance, calls of the head. Fast drawing: test_draw_law.py."""

from dataclasses import fields
from functools import partial

import pytest
import torch

from models.AE import make_ae
from models.MARDM import MARDM, MARDM_models
from models.masking import lengths_to_mask
from models.options import SIZES, GeneratorOptions
from models.sampling import SamplingConfig
from models.Transformer import Attention, CrossAttention, PositionalEncoding
from utils.config import GeneratorConfig
from utils.training.monitoring import neighbour_attention


def fill_zero_weights(module):
    """Random weights in the place of the zeros that a new modulation starts with."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            if not p.abs().sum():
                p.copy_(0.05 * torch.randn(p.shape, generator=generator))
    return module


@pytest.fixture(params=["MARDM-SiT-XS", "FSQ-MARDM-SiT-XS"])
def pair(request):
    """(generator, its autoencoder), float64, with weights that are not zero."""
    torch.manual_seed(0)
    ae = make_ae("FSQ_AE_Small" if request.param.startswith("FSQ") else "AE_Model", width=32)
    mardm = MARDM_models[request.param](ae_dim=32, target_dim=ae.target_dim, text_dim=16)
    mardm.set_target_stats(0.1 * torch.ones(ae.target_dim), torch.full((ae.target_dim,), 0.5))
    return fill_zero_weights(mardm).double().eval(), ae.double().eval()


@torch.no_grad()
def test_new_weights_have_the_deviations_of_mardm_and_every_block_begins_as_identity():
    torch.manual_seed(0)
    mardm = MARDM(size="XS", ae_dim=512, attention="flat", text_tokens="on").eval()
    net, reader, (block,) = mardm.DiffMLPs.net, mardm.text_reader, mardm.MARTransformer
    narrow = [mardm.mask_latent, reader.no_word, mardm.cond_emb.weight, block.mlp.fc1.weight]
    for weight in (*narrow, net.time_embed.mlp[0].weight, net.time_embed.mlp[2].weight):
        assert weight.std() == pytest.approx(0.02, rel=0.25)
    for layer in (net.input_proj, net.cond_embed, net.res_blocks[0].mlp[0]):  # Xavier, uniform
        assert layer.weight.abs().max() == pytest.approx((6 / sum(layer.weight.shape)) ** 0.5, rel=0.02)
    assert all((m.bias == 0).all() for m in mardm.modules() if isinstance(m, torch.nn.Linear))
    for layer in (block, *net.res_blocks, net.final_layer):
        assert (layer.adaLN_modulation[1].weight == 0).all()
    assert (net.final_layer.linear.weight == 0).all()
    for layer in reader.layers:  # words begin at their neighbours
        attention = layer.attn.weights(layer.norm1(reader.position_enc(torch.zeros(1, 40, 128))), ROOM)[0]
        assert attention[0, range(10, 40), range(9, 39)].mean() > 0.6


ROOM = torch.ones(1, 40, dtype=torch.bool)


def test_dropout_acts_in_training_alone():
    """On positions, on what is attended to, and on what comes of it."""
    torch.manual_seed(0)
    x = torch.randn(1, 40, 8)
    for weights, output in ((0.5, 0.0), (0.0, 0.5)):
        place = PositionalEncoding(8, output)
        attention, cross = Attention(8, 2, weights), CrossAttention(8, 2, weights)
        attention.drop.p = cross.drop.p = output
        words = *cross.keys_values(x), ROOM
        for module, given in ((place, (x,)), (attention, (x, ROOM)), (cross, (x, words))):
            acts = module is not place or output > 0
            assert torch.equal(module(*given), module(*given)) != acts
            module.eval()
            assert torch.equal(module(*given), module(*given))


@pytest.mark.parametrize("size", SIZES)
def test_heads_begin_at_the_neighbours(size):
    """1 before, 1 after, 2 before, 2 after, ...; not at the first tokens, which the layer norm distorts."""
    torch.manual_seed(0)
    block = MARDM(size=size, ae_dim=16, attention="neighbours").MARTransformer[0]
    n = block.norm1(PositionalEncoding(SIZES[size].latent_dim, 0.0)(torch.zeros(1, 49, 1)))
    q, k = (
        f(n).unflatten(-1, (block.attn.heads, -1)).transpose(1, 2) for f in (block.attn.query, block.attn.key)
    )
    weights = (q @ k.mT / q.shape[-1] ** 0.5)[0].softmax(dim=-1)
    offsets = [(1 + head // 2) * (-1) ** (head + 1) for head in range(block.attn.heads)]
    for attention, offset in zip(weights, offsets):
        inner = torch.arange(6 + abs(offset), 49 - max(0, offset))
        assert (attention.argmax(dim=-1)[inner] == inner + offset).float().mean() > 0.9
        assert attention[inner, inner + offset].mean() > 0.6


def test_only_queries_and_keys_know_of_it():
    """Where attention begins changes no other weights."""
    states = []
    for attention in ("neighbours", "flat"):
        torch.manual_seed(0)
        states.append(MARDM(size="XS", ae_dim=16, attention=attention).state_dict())
    changed = [name for name, value in states[0].items() if not torch.equal(value, states[1][name])]
    assert changed == [f"MARTransformer.0.attn.{name}.weight" for name in ("key", "query")]


def masses(attention, **options):
    torch.manual_seed(0)
    mardm = MARDM(size="XS", ae_dim=16, target_dim=5, text_dim=8, attention=attention, **options).eval()
    return mardm, lambda: float(neighbour_attention(mardm, torch.zeros(3, 16, 49), torch.zeros(3, 8), M_LENS))


M_LENS = torch.tensor([49, 20, 7])


def test_attention_begins_where_it_is_asked_to():
    assert masses("flat")[1]() < 0.1
    assert masses("neighbours")[1]() > 0.6
    assert masses("relative_bias")[1]() > 0.85


def test_a_relative_bias_of_zero_is_no_bias():
    """So a published checkpoint is one whose bias is 0."""
    plain, biased = masses("flat")[0], masses("relative_bias")[0]
    missing, extra = biased.load_state_dict(plain.state_dict(), strict=False)
    assert missing == ["MARTransformer.0.attn.relative_bias"] and not extra
    biased.MARTransformer[0].attn.relative_bias.data.zero_()
    x, text, inside = torch.randn(3, 49, 16), torch.randn(3, 8), lengths_to_mask(M_LENS, 49)
    a, b = (model.transformer(x, text, inside) for model in (plain, biased))
    torch.testing.assert_close(a[inside], b[inside])


def test_a_relative_bias_keeps_its_positions_when_tokens_are_sorted():
    mardm = fill_zero_weights(masses("relative_bias")[0]).double()
    x, text = torch.randn(3, 49, 16).double(), torch.randn(3, 8).double()
    inside = lengths_to_mask(M_LENS, 49)
    plain, sorted_ = (mardm.transformer(x, text, inside, order) for order in (None, torch.rand(3, 49)))
    torch.testing.assert_close(plain[inside], sorted_[inside], atol=1e-9, rtol=0)


@pytest.mark.parametrize("order", [None, torch.rand(3, 49, generator=torch.Generator().manual_seed(2))])
@pytest.mark.parametrize("attention", ["flat", "relative_bias"])
def test_conditions_of_some_tokens_are_those_of_all(order, attention):
    mardm = fill_zero_weights(masses(attention)[0]).double()
    x, text = torch.randn(3, 49, 16).double(), torch.randn(3, 8).double()
    inside, asked = lengths_to_mask(M_LENS, 49), torch.tensor([[0, 48], [7, 3], [6, 6]])
    every, some = (mardm.transformer(x, text, inside, order, wanted) for wanted in (None, asked))
    torch.testing.assert_close(some, every[torch.arange(3)[:, None], asked], atol=1e-9, rtol=0)


def test_a_relative_bias_learns_and_is_not_lost():
    """Copy the left neighbour, at a rate that is large for XS."""
    mardm, mass = masses("relative_bias", dropout=0.0)
    bias = mardm.MARTransformer[0].attn.relative_bias
    before = bias.detach().clone()
    optimizer = torch.optim.AdamW(mardm.parameters(), 2e-3, betas=(0.9, 0.99))
    losses = []
    for step in range(60):
        targets = torch.randn(8, 20, 5, generator=torch.Generator().manual_seed(step))
        latents = torch.nn.functional.pad(targets, (0, 11)).roll(-1, dims=1).mT
        loss = mardm.forward_loss(latents, targets, torch.zeros(8, 8), torch.full((8,), 20))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert (bias.grad != 0).any() and not torch.equal(bias, before)
    assert sum(losses[-10:]) < sum(losses[:10])
    assert mass() > 0.5


def test_a_prompt_gives_the_same_motion_alone_and_in_a_batch(pair):
    mardm, ae = pair
    text, m_lens = torch.randn(4, 16, dtype=torch.float64), torch.tensor([3, 12, 1, 7])
    sampling = SamplingConfig(cfg=3.0, snap="off")
    together = mardm.generate(ae, text, m_lens, sampling, keys=[5, 6, 7, 8])
    for i, n in enumerate(m_lens.tolist()):
        alone = mardm.generate(ae, text[i : i + 1], m_lens[i : i + 1], sampling, keys=[5 + i])
        torch.testing.assert_close(together[i, :n], alone[0], atol=1e-9, rtol=0)
        assert (together[i, n:] == 0).all()


def test_the_head_is_asked_only_for_what_is_kept(pair):
    mardm, ae = pair
    rows = []
    mardm.DiffMLPs.net.register_forward_hook(lambda net, given, out: rows.append(len(out)))
    m_lens = torch.tensor([20, 9])
    mardm.generate(
        ae, torch.randn(2, 16, dtype=torch.float64), m_lens, SamplingConfig(cfg=2.0, sampler="heun")
    )
    assert sum(rows) == 29 * 8 * 2  # tokens x evaluations x guidance
    rows.clear()
    mardm.generate(
        ae, torch.randn(2, 16, dtype=torch.float64), m_lens, SamplingConfig(cfg=1.0, sampler="euler")
    )
    assert sum(rows) == 29 * 4


def test_reordering_the_tokens_changes_rounding_only(pair):
    mardm, ae = pair
    text, m_lens = torch.randn(2, 16, dtype=torch.float64), torch.tensor([9, 5])
    plain, sorted_ = (
        mardm.generate(ae, text, m_lens, SamplingConfig(snap="off", hard_pseudo_reorder=flag))
        for flag in (False, True)
    )
    torch.testing.assert_close(plain, sorted_, atol=1e-9, rtol=0)


def test_temperature_snap_and_seed_have_their_effects(pair):
    mardm, ae = pair
    text, m_lens = torch.randn(1, 16, dtype=torch.float64), torch.tensor([8])
    draw = partial(mardm.generate, ae, text, m_lens)
    assert torch.equal(draw(SamplingConfig()), draw(SamplingConfig()))
    assert not draw(SamplingConfig()).requires_grad
    assert not torch.equal(draw(SamplingConfig(snap="off")), draw(SamplingConfig(snap="off", seed=1)))
    assert not torch.equal(
        draw(SamplingConfig(snap="off")), draw(SamplingConfig(snap="off", temperature=0.1))
    )
    for snap in ("step", "end"):
        legal = draw(SamplingConfig(snap=snap))
        assert torch.equal(ae.quantize(legal), legal)


def test_the_loss_counts_hidden_real_tokens_only(pair):
    mardm, ae = pair
    B, L = 3, 10
    latents, text = torch.randn(B, 32, L, dtype=torch.float64), torch.randn(B, 16, dtype=torch.float64)
    targets = torch.randn(B, L, mardm.target_dim, dtype=torch.float64)
    m_lens = torch.tensor([10, 4, 7])
    inside = lengths_to_mask(m_lens, L)
    hidden = inside & (torch.arange(L) % 2 == 0)
    masks = hidden, torch.zeros_like(hidden), hidden
    n = int(hidden.sum()) * mardm.diffmlps_batch_mul
    t, noise = torch.rand(n, dtype=torch.float64), torch.randn(n, mardm.target_dim, dtype=torch.float64)

    def loss(latents, targets):
        return mardm.forward_loss(latents, targets, text, m_lens, masks=masks, t=t, noise=noise)

    base = loss(latents, targets)
    seen = (inside & ~hidden)[:, None] | torch.zeros_like(latents, dtype=torch.bool)
    assert torch.equal(
        base, loss(torch.where(seen, latents, 9.0), torch.where(hidden[..., None], targets, 7.0))
    )
    assert not torch.equal(base, loss(latents + seen, targets))


def test_a_batch_without_hidden_tokens_has_no_loss_and_no_nan(pair):
    mardm, ae = pair
    empty = torch.zeros(2, 5, dtype=torch.bool)
    loss = mardm.forward_loss(
        torch.randn(2, 32, 5, dtype=torch.float64),
        torch.randn(2, 5, mardm.target_dim, dtype=torch.float64),
        torch.randn(2, 16, dtype=torch.float64),
        torch.tensor([5, 3]),
        masks=(empty, empty, empty),
    )
    assert loss == 0
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in mardm.parameters() if p.grad is not None)


def test_no_gradient_reaches_the_autoencoder(pair):
    mardm, ae = pair
    latents, targets = ae.tokenize(torch.randn(2, 40, 67, dtype=torch.float64))
    mardm.forward_loss(
        latents, targets, torch.randn(2, 16, dtype=torch.float64), torch.tensor([10, 10])
    ).backward()
    assert all(p.grad is None for p in ae.parameters())


def test_targets_are_standardised_and_the_statistics_stay_out_of_the_state_dict(pair):
    mardm, ae = pair
    assert not any("target" in key for key in mardm.state_dict())
    with pytest.MonkeyPatch.context() as patch:
        seen = []
        patch.setattr(mardm.DiffMLPs, "loss", lambda rows, z, t, noise: seen.append(rows) or rows.sum(dim=1))
        targets = torch.full((1, 6, mardm.target_dim), 0.6, dtype=torch.float64)
        latents = torch.randn(1, 32, 6, dtype=torch.float64)
        mardm.forward_loss(latents, targets, torch.randn(1, 16, dtype=torch.float64), torch.tensor([6]))
    torch.testing.assert_close(seen[0], torch.ones_like(seen[0]))  # (0.6 - 0.1) / 0.5
    mardm.set_target_stats(*torch.zeros(2, mardm.target_dim))
    assert mardm.target_stats["std"].min() == pytest.approx(1e-3)  # a target that never changes is no 0 / 0


def test_every_draw_of_every_hidden_token_has_a_time_and_noise_of_its_own(pair, monkeypatch):
    mardm, _ = pair
    seen = []
    monkeypatch.setattr(
        mardm.DiffMLPs, "loss", lambda rows, z, t, noise: seen.extend((t, noise)) or rows.sum(dim=1)
    )
    hidden = torch.ones(2, 6, dtype=torch.bool)
    latents, targets = torch.randn(2, 32, 6).double(), torch.randn(2, 6, mardm.target_dim).double()
    masks = hidden, ~hidden, hidden
    mardm.forward_loss(latents, targets, torch.randn(2, 16).double(), torch.tensor([6, 6]), masks=masks)
    t, noise = seen
    assert len(t.unique()) == len(noise.unique(dim=0)) == len(t) == 12 * mardm.diffmlps_batch_mul


def test_new_generators_have_the_defaults_of_published_ones_but_for_the_attention():
    new, published = ({f.name: f.default for f in fields(c)} for c in (GeneratorConfig, GeneratorOptions))
    different = {name for name in set(new) & set(published) if new[name] != published[name]}
    assert different == {"attention"}
