"""Word states in MARDM: pooled text is a special case, an absent text has no words, each is read once."""

import pytest
import torch

from models.AE import make_ae
from models.MARDM import MARDM
from models.sampling import SamplingConfig
from models.words import TextReader, drop_texts
from tests.test_MARDM import fill_zero_weights

SHAPE = {"kind": "FSQ", "size": "XS", "ae_dim": 32, "target_dim": 6, "text_dim": 16}


@pytest.fixture
def mardm():
    torch.manual_seed(0)
    return MARDM(**SHAPE, text_tokens="on", pooled_drop_prob=0.5).eval()


@pytest.fixture
def given():
    torch.manual_seed(1)
    inside = torch.arange(9) < torch.tensor([9, 4, 7])[:, None]
    text = torch.randn(3, 1 + 5, 16)
    text[1, 4:] = 0
    return torch.randn(3, 9, 32), text, inside


def test_a_pooled_model_is_the_special_case_before_training(mardm, given):
    latents, text, inside = given
    pooled = MARDM(**SHAPE).eval()
    missing = mardm.load_state_dict(pooled.state_dict(), strict=False).missing_keys
    assert missing and all(key.startswith("text_reader.") or ".cross." in key for key in missing)
    torch.testing.assert_close(
        mardm.transformer(latents, text, inside), pooled.transformer(latents, text[:, 0], inside)
    )
    assert not any("cross" in key or "reader" in key for key in pooled.state_dict())


def test_words_are_heard_by_place_and_padding_is_not(mardm, given):
    latents, text, inside = given
    fill_zero_weights(mardm)
    z = mardm.transformer(latents, text, inside)
    swapped = text[:, [0, 2, 1, 3, 4, 5]]
    assert (mardm.transformer(latents, swapped, inside) - z).abs().max() > 1e-4
    padded = torch.cat([text, torch.zeros(3, 7, 16)], dim=1)
    torch.testing.assert_close(mardm.transformer(latents, padded, inside), z, atol=1e-5, rtol=1e-4)
    alone = mardm.transformer(latents[1:2], text[1:2, :4], inside[1:2])
    torch.testing.assert_close(alone[0, :4], z[1, :4], atol=1e-5, rtol=1e-4)
    nothing = [mardm.transformer(latents, torch.zeros(3, n, 16), inside) for n in (1, 6)]
    torch.testing.assert_close(*nothing, atol=1e-5, rtol=1e-4)
    assert torch.isfinite(nothing[0]).all()


@torch.no_grad()
def test_neither_words_nor_motion_are_heard_by_their_size(mardm, given):
    latents, text, _ = given
    reader, cross = mardm.text_reader, fill_zero_weights(mardm).MARTransformer[0].cross
    states, present = reader(text[:, 1:])
    torch.testing.assert_close(reader(9 * text[:, 1:])[0], states, atol=1e-4, rtol=0)
    torch.testing.assert_close(states.square().mean(dim=-1), torch.ones(3, 6), atol=0.02, rtol=0)
    x, words = torch.randn(3, 9, 128), (*cross.keys_values(states), present)
    torch.testing.assert_close(cross(9 * x, words), cross(x, words), atol=1e-4, rtol=0)


def test_guidance_drops_words_and_pooled_vector_together(given):
    text, keys = given[1][:1].abs().repeat(4000, 1, 1) + 1, torch.arange(4000) * 977
    left = drop_texts(text, keys, 0.2, 0.4) != 0
    pooled, words = left[:, 0].all(dim=1), left[:, 1:].flatten(1)
    assert (words.all(dim=1) == words.any(dim=1)).all() and not (pooled & ~words.all(dim=1)).any()
    assert abs(words.float().mean() - 0.8) < 0.03 and abs(pooled.float().mean() - 0.8 * 0.6) < 0.03


def test_a_pooled_vector_that_was_never_heard_is_not_heard_later(given):
    latents, text, inside = given
    torch.manual_seed(0)
    mardm = fill_zero_weights(MARDM(**SHAPE, text_tokens="on", pooled_drop_prob=1.0)).eval()
    other = torch.cat([text[:, :1] + 1, text[:, 1:]], dim=1)
    a, b = (mardm.transformer(latents, x, inside) for x in (text, other))
    torch.testing.assert_close(a, b)


def test_a_text_is_read_once_for_all_rounds(mardm, given, monkeypatch):
    ae = make_ae("FSQ_AE_High", width=32).eval()
    reads, forward = [], TextReader.forward
    monkeypatch.setattr(
        TextReader, "forward", lambda self, words: reads.append(len(words)) or forward(self, words)
    )
    sampling, m_lens = SamplingConfig(time_steps=5), torch.tensor([9, 4, 7])
    drawn = fill_zero_weights(mardm).generate(ae, given[1], m_lens, sampling)
    assert reads == [6]  # with and without the text
    alone = mardm.generate(ae, given[1][1:2, :4], m_lens[1:2], sampling, keys=[1])
    torch.testing.assert_close(alone[0], drawn[1, :4], atol=1e-4, rtol=1e-4)


def test_the_words_learn_what_the_pooled_vector_cannot_say(given):
    """Two texts of the same pooled vector whose words differ in order alone want different motions."""
    torch.manual_seed(3)
    mardm = MARDM(**SHAPE, text_tokens="on", dropout=0.0, cond_drop_prob=0.0, pooled_drop_prob=0.0)
    latents, inside = given[0][:1, :4].repeat(2, 1, 1), torch.ones(2, 4, dtype=torch.bool)
    text = given[1][:1].repeat(2, 1, 1)
    text[1, 1:] = text[0, 1:].flip(0)
    wanted = torch.tensor([1.0, -1.0])[:, None]
    optimizer = torch.optim.Adam(mardm.parameters(), 1e-3)
    for _ in range(60):
        loss = (mardm.transformer(latents, text, inside)[..., 0] - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
