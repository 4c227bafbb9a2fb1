"""The autoencoders: the zoo, the four verbs, and a clip that comes out as if it were alone."""

import math

import pytest
import torch

import models.AE
from models.AE import FSQ_LEVELS, AE_models, make_ae
from models.counter_rng import Purpose, sample_keys
from utils.training.token_statistics import keep_real_tokens


@pytest.fixture(params=["AE_Model", "Narrow_AE_Model", "FSQ_AE_High"])
def ae(request):
    torch.manual_seed(0)
    return make_ae(request.param, width=32).eval()


@pytest.mark.parametrize("name", FSQ_LEVELS)
def test_the_zoo_prints_the_product_of_its_levels(name):
    table = {
        "Small": 3125,
        "Medium": 5000,
        "Large": 36000,
        "High": 64000,
        "XLarge": 76800,
        "Ultra": 102400,
        "Mega": 163840,
        "HighDim7": 109375,
        "HighDim8": 390625,
    }
    model = make_ae(name, width=8)
    assert model.fsq.codebook_size == table[name.removeprefix("FSQ_AE_")] == math.prod(model.fsq_levels)
    assert model.fsq_dim == len(model.fsq_levels) == model.target_dim


def test_default_sizes_are_the_published_ones():
    assert sum(p.numel() for p in AE_models["AE_Model"]().parameters()) == 18_834_499
    assert AE_models["FSQ_AE_Model"]().fsq_levels == [8, 5, 5, 5, 5]


def test_the_narrow_control_is_the_grid_without_its_rounding():
    """Same parameters; its targets, rounded, are the grid's."""
    torch.manual_seed(0)
    grid = make_ae("FSQ_AE_High", width=16).eval()
    narrow = make_ae("Narrow_AE_Model", width=16).eval()
    narrow.load_state_dict(grid.state_dict())  # strictly
    motion = torch.randn(2, 16, 67)
    with torch.no_grad():
        assert narrow.tokenize(motion)[1].shape == (2, 4, 6)
        torch.testing.assert_close(grid.tokenize(motion)[1], grid.fsq(narrow.tokenize(motion)[1]))
    assert narrow.kind == "continuous" and narrow.codebook_size is None


def test_a_padded_clip_comes_out_as_if_it_were_alone(ae):
    alone = torch.randn(1, 40, 67)
    padded = torch.cat([alone, 5 * torch.randn(1, 24, 67)], dim=1)
    batch, m_lens = torch.cat([padded, torch.randn(1, 64, 67)]), torch.tensor([40, 64])
    with torch.no_grad():
        latents, targets = ae.tokenize(batch, m_lens)
        alone_latents, alone_targets = ae.tokenize(alone)
        torch.testing.assert_close(targets[:1, :10], alone_targets, atol=1e-5, rtol=0)
        torch.testing.assert_close(latents[:1, :, :10], alone_latents, atol=1e-5, rtol=0)
        motion = ae.detokenize(targets, m_lens)
        torch.testing.assert_close(motion[:1, :40], ae.detokenize(alone_targets), atol=1e-5, rtol=0)
        assert (motion[0, 40:] == 0).all()


@pytest.mark.parametrize("longest", [24, 25, 26, 27])
def test_so_does_one_whose_length_is_no_multiple_of_four(ae, longest):
    """In a batch of any length: its last frames are seen, and it gets back its whole tokens."""
    x = torch.randn(2, longest, 67)
    for n in (5, 10, 15, 23):
        batch, alone = x.clone(), x[:1, :n]
        batch[0, n:] = 5
        m_lens, whole = torch.tensor([n, longest]), n // 4 * 4
        with torch.no_grad():
            targets, alone_targets = (ae.tokenize(*given)[1] for given in ((batch, m_lens), (alone,)))
            torch.testing.assert_close(targets[:1, : n // 4], alone_targets, atol=1e-5, rtol=0)
            torch.testing.assert_close(ae(batch, m_lens)[:1, :whole], ae(alone), atol=1e-5, rtol=0)


def test_whole_clips_come_out_as_without_lengths(ae):
    """Bit for bit, so that masking may be left out where lengths on the host show no padding."""
    motion, whole = torch.randn(3, 32, 67), torch.full((3,), 32)
    with torch.no_grad():
        latents, targets = ae.tokenize(motion, whole)
        ends = whole, 32
        assert torch.equal(ae.encoder(motion.mT, ends), ae.encoder(motion.mT))
        assert torch.equal(targets, ae.tokenize(motion)[1])
        assert torch.equal(ae.decoder(latents, ends), ae.decoder(latents))


def test_the_parents_padding_is_kept_for_its_checkpoints():
    torch.manual_seed(0)
    old = make_ae("AE_Model", width=32, mask_padding=False).eval()
    alone = torch.randn(1, 40, 67)
    padded, m_lens = torch.cat([alone, torch.randn(1, 24, 67)], dim=1), torch.tensor([40])
    with torch.no_grad():
        assert (old.tokenize(padded, m_lens)[1][:, :10] - old.tokenize(alone)[1]).abs().max() > 1e-3


def test_detokenize_after_tokenize_is_the_reconstruction(ae):
    motion, m_lens = torch.randn(2, 32, 67), torch.tensor([32, 20])
    with torch.no_grad():
        latents, targets = ae.tokenize(motion, m_lens)
        torch.testing.assert_close(ae.embed_codes(targets), latents)
        recons = ae.detokenize(targets, m_lens)
        torch.testing.assert_close(recons[0], ae(motion, m_lens)[0])
        torch.testing.assert_close(ae.encode(motion, m_lens), latents)


def test_snap_off_decodes_what_it_is_given():
    torch.manual_seed(0)
    ae = make_ae("FSQ_AE_High", width=32).eval()
    coords = torch.rand(1, 5, 6) - 0.5
    with torch.no_grad():
        off, on = ae.detokenize(coords, snap=False), ae.detokenize(coords, snap=True)
        torch.testing.assert_close(off, ae.decode_from_fsq(coords))
        torch.testing.assert_close(on, ae.decode_from_fsq(ae.quantize(coords)))
        assert (off - on).abs().max() > 1e-4


def test_whole_clips_on_a_device_are_not_masked(monkeypatch):
    """Lengths on the host, all else on a device (meta stands for it): masks only where there is padding."""
    ae, masked = make_ae("AE_Model", width=8).to("meta"), []

    def mask(x, lengths, dim):
        masked.append(lengths.device.type)
        return x

    monkeypatch.setattr(models.AE, "zero_past", mask)
    motion = torch.zeros(2, 32, 67, device="meta")
    ae.tokenize(motion, torch.tensor([32, 32]))
    assert masked == []
    ae.tokenize(motion, torch.tensor([32, 20]))
    assert set(masked) == {"meta"}


def test_replacements_of_continuous_latents_are_real_tokens():
    torch.manual_seed(0)
    ae = make_ae("AE_Model", width=16).eval()
    motion, m_lens = torch.randn(3, 32, 67), torch.tensor([32, 20, 8])
    latents = torch.zeros(4, 16, 9)
    keys = sample_keys(torch.arange(4), Purpose.TRAINING, 1)
    normal = ae.random_replacements(latents, keys)
    assert normal.std() == pytest.approx(1, abs=0.1)  # MARDM's
    ae.keep_real_tokens(motion, m_lens)
    with torch.no_grad():
        tokens = ae.tokenize(motion, m_lens)[1]
    real = torch.cat([tokens[i, : n // 4] for i, n in enumerate(m_lens.tolist())])
    replaced = ae.random_replacements(latents, keys)
    assert (replaced.mT[:, :, None] == real).all(dim=-1).any(dim=-1).all()
    assert len(replaced.mT.flatten(0, 1).unique(dim=0)) > 8  # of 15
    assert torch.equal(ae.random_replacements(latents[:1, :, :5], keys[2:3])[0], replaced[2, :, :5])


def test_no_clip_is_encoded_for_replacements_from_a_code_book():
    for model in ("FSQ_AE_Small", "VQ_AE_Model"):
        keep_real_tokens(make_ae(model, width=16), None, torch.device("cpu"))  # None: no clip is read


def test_random_replacements_are_legal():
    ae = make_ae("FSQ_AE_High", width=32)
    latents = torch.zeros(2, 32, 7)
    lifted = ae.random_replacements(latents, sample_keys(torch.arange(2), Purpose.TRAINING, 1))
    # undo the linear lift: the coordinates must lie on the grid
    coords = (lifted.mT - ae.post_fsq.bias) @ torch.linalg.pinv(ae.post_fsq.weight).mT
    torch.testing.assert_close(ae.quantize(coords), coords, atol=1e-4, rtol=0)
    assert coords.std() > 0.3


def test_only_the_bottlenecks_own_flags_reach_it():
    assert make_ae("FSQ_AE_Model", width=8, fsq_levels=[7, 3], codebook_size=9).fsq_levels == [7, 3]
    assert make_ae("FSQ_AE_Small", width=8, fsq_levels=[7, 3]).fsq_levels == [5] * 5
    assert make_ae("AE_Model", width=8, fsq_levels=[7, 3]).target_dim == 8
