"""Addressed random numbers: the right distribution, and no dependence on who else is in the batch."""

import pytest
import scipy.stats
import torch

from models import draws
from models.AE import make_ae
from models.counter_rng import Purpose, integers, normal, rng, sample_keys, splitmix64, uniform
from models.draws import TrainingDraws
from models.MARDM import MARDM_models

KEYS = sample_keys(torch.arange(200), Purpose.TRAINING, 3407, 17)


def keys_at(step):
    return sample_keys(torch.tensor([5]), Purpose.TRAINING, 1, step)


def test_no_two_addresses_share_a_stream():
    """NumPy's own SeedSequence pads with zeros: to it (s, 5), (s, 5, 0) and (s + 5 * 2^32,) are one."""
    big = 2**32
    addresses = [(3,), (3, 5), (3, 5, 0), (3, 5, 0, 0), (3 + 5 * big,), (3 + 5 * big, 0), (3, 5 * big), (-3,)]
    streams = [rng(purpose, *address).random() for purpose in Purpose for address in addresses]
    streams += [
        float(uniform(sample_keys(torch.tensor([0]), p, *a), 0, (1,))) for p in Purpose for a in addresses
    ]
    assert len(set(streams)) == len(streams) == 2 * len(Purpose) * len(addresses)
    assert rng(Purpose.CROP, 3, 5).random() == rng(Purpose.CROP, 3, 5).random()


def test_no_two_draws_of_a_clip_share_a_stream():
    streams = [value for name, value in vars(draws).items() if name.isupper() and type(value) is int]
    assert len(streams) == len(set(streams)) == 9


def test_the_hash_is_splitmix64():
    """The first outputs of the published generator with seed 0."""
    golden = 0x9E3779B97F4A7C15
    state = torch.tensor(
        [(i * golden) % 2**64 - (2**64 if (i * golden) % 2**64 >= 2**63 else 0) for i in (1, 2, 3)]
    )
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [x % 2**64 for x in splitmix64(state).tolist()] == expected


@pytest.mark.parametrize("draw, cdf", [(uniform, "uniform"), (normal, "norm")])
def test_draws_have_their_distribution(draw, cdf):
    """Over the numbers of a clip, over clips, steps, purposes: Kolmogorov and Smirnov see nothing."""
    samples = {
        "all": draw(KEYS, 1, (50, 4)),
        "first of each clip": draw(KEYS, 2, (1,)),
        "steps": torch.cat([draw(keys_at(step), 1, (1,)) for step in range(500)]),
        "purposes": torch.cat([draw(KEYS[:1], purpose, (1,)) for purpose in range(500)]),
    }
    for name, sample in samples.items():
        assert sample.isfinite().all()
        assert scipy.stats.kstest(sample.flatten().numpy(), cdf).pvalue > 1e-3, name
    between = torch.corrcoef(torch.cat([draw(KEYS, purpose, (100,)) for purpose in (1, 2, 3)]))
    between = between[~torch.eye(len(between), dtype=torch.bool)]
    assert between.abs().max() < 0.6  # 180,000 pairs of clips or purposes, 100 numbers each: 6 sigma


def test_a_clip_draws_alone_what_it_draws_in_a_batch():
    block = normal(KEYS, 3, (7, 5))
    assert torch.equal(normal(KEYS[40:41], 3, (7, 5))[0], block[40])
    assert torch.equal(normal(KEYS[[9, 40]], 3, (5,), at=torch.tensor([2, 6])), block[[9, 40], [2, 6]])
    assert torch.equal(uniform(KEYS, 3, (9,))[:, :4], uniform(KEYS, 3, (4,)))
    assert not torch.equal(normal(KEYS, 4, (7, 5)), block)


def test_integers_reach_every_value_alike():
    counts = torch.bincount(integers(KEYS, 1, (500,), 7).flatten(), minlength=8)
    assert counts[7] == 0 and scipy.stats.chisquare(counts[:7].numpy()).pvalue > 1e-3


@pytest.mark.parametrize(
    "model, entry", [("FSQ_AE_Small", "FSQ-MARDM-SiT-XS"), ("VQ_AE_Model", "VQ_MARDM-DDPM-XS")]
)
def test_the_loss_of_a_batch_is_that_of_its_clips(model, entry):
    """Alone and without padding, or together: the same draws, so the same sum and the same gradients."""
    torch.manual_seed(0)
    ae = make_ae(model, width=16).double().eval()
    mardm = MARDM_models[entry](ae_dim=16, target_dim=ae.target_dim, text_dim=8, dropout=0.0).double()
    motion, text = torch.randn(3, 40, 67, dtype=torch.float64), torch.randn(3, 8, dtype=torch.float64)
    m_lens, keys = torch.tensor([40, 24, 8]), sample_keys(torch.tensor([11, 4, 7]), Purpose.TRAINING, 1, 2)

    def loss(rows):
        frames = int(m_lens[rows].max())
        latents, targets = ae.tokenize(motion[rows, :frames], m_lens[rows])
        random_replacements = ae.random_replacements(latents, keys[rows])
        given = TrainingDraws(keys[rows], 10, random_replacements)
        return mardm.summed_loss(latents, targets, text[rows], m_lens[rows] // 4, given)

    def gradient(parts):
        mardm.zero_grad()
        total, count = map(sum, zip(*(loss(rows) for rows in parts)))
        total.backward()
        return total.detach(), count, torch.cat([p.grad.flatten() for p in mardm.parameters()])

    together, alone = gradient([[0, 1, 2]]), gradient([[2], [0], [1]])
    assert together[1] == alone[1] > 0
    torch.testing.assert_close(together[0], alone[0], rtol=1e-12, atol=0)
    torch.testing.assert_close(together[2], alone[2], rtol=1e-9, atol=1e-11)
