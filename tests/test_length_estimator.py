"""models/LengthEstimator.py: the laws of drawing a length."""

import numpy as np
import pytest
import torch

from models.LengthEstimator import MAX_TOKENS, length_distribution, sample_lengths


def test_only_legal_lengths_share_the_probability():
    logits = torch.randn(7, 60, generator=torch.Generator().manual_seed(0)) * 5
    share = length_distribution(logits, min_tokens=6)
    assert share.dtype == torch.float64
    assert (share[:, :6] == 0).all() and (share[:, MAX_TOKENS + 1 :] == 0).all()
    torch.testing.assert_close(share.sum(dim=1), torch.ones(7, dtype=torch.float64))
    legal = logits.double()[:, 6 : MAX_TOKENS + 1]  # ratios among legal lengths stay those of the logits
    torch.testing.assert_close(share[:, 6 : MAX_TOKENS + 1].log().diff(dim=1), legal.diff(dim=1))


@pytest.mark.parametrize("favourite, drawn", [(0, 10), (9, 10), (10, 10), (30, 30), (49, 49), (55, 49)])
def test_an_illegal_favourite_is_never_drawn(favourite, drawn):
    logits = torch.zeros(50, 60)
    logits[:, favourite] = 50
    logits[:, min(max(favourite, 10), MAX_TOKENS)] += 40  # the nearest legal length comes second
    assert (sample_lengths(logits, min_tokens=10, seed=1) == drawn).all()


def test_lengths_follow_the_distribution():
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().expand(20000, 4)
    lengths = sample_lengths(logits, min_tokens=1, seed=5)
    found = np.bincount(lengths.numpy(), minlength=4) / 20000
    np.testing.assert_allclose(found, np.array([0, 2, 3, 4]) / 9, atol=4 * (0.25 / 20000) ** 0.5)


def test_a_draw_depends_on_seed_and_prompt_alone():
    logits = torch.randn(40, 50, generator=torch.Generator().manual_seed(0))
    together = sample_lengths(logits, 6, seed=3)
    alone = torch.cat([sample_lengths(logits[i : i + 1], 6, seed=3, indices=[i]) for i in range(40)])
    assert torch.equal(together, alone)
    assert not torch.equal(together, sample_lengths(logits, 6, seed=4))
    assert (
        len(set(sample_lengths(torch.zeros(40, 50), 6, seed=3).tolist())) > 15
    )  # prompts draw independently
