"""Masks: how many, which, and when each token is revealed."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.counter_rng import Purpose, sample_keys
from models.draws import keyed_masks
from models.masking import hidden_counts, lengths_to_mask, reveal_rounds, training_masks

SEEDS, LENGTHS = st.integers(0, 10**6), st.lists(st.integers(1, 49), min_size=1, max_size=6)


def test_counts_of_the_cosine_schedule():
    counts = hidden_counts(torch.tensor([49, 10, 0]), 18)
    expected = [49, 49, 48, 47, 46, 44, 42, 39, 36, 33, 30, 26, 22, 18, 13, 9, 5, 1, 0]
    assert counts[0].tolist() == expected
    assert counts[1].tolist() == [10, 10, 10, 10, 9, 9, 9, 8, 7, 7, 6, 5, 4, 4, 3, 2, 1, 1, 0]
    assert counts[2].tolist() == [0] * 19


@settings(max_examples=60, deadline=None)
@given(lengths=LENGTHS, kept=st.sampled_from([0.0, 0.5, 1.0]), rounds=st.integers(1, 25), seed=SEEDS)
def test_every_hidden_token_leaves_exactly_once_and_on_schedule(lengths, kept, rounds, seed):
    """kept: the share of tokens that an edit leaves alone."""
    lengths, generator = torch.tensor(lengths), torch.Generator().manual_seed(seed)
    order, sections = torch.rand(2, len(lengths), int(lengths.max()), generator=generator)
    hidden = lengths_to_mask(lengths, order.shape[1]) & (sections >= kept)
    leaves = reveal_rounds(hidden, order, rounds)
    assert torch.equal(leaves >= 0, hidden) and (leaves[~hidden] == -1).all()
    counts = hidden_counts(hidden.sum(dim=1), rounds)
    for s in range(rounds):
        assert torch.equal((leaves >= s).sum(dim=1), counts[:, s])
    # the smaller its number, the longer a token stays hidden
    for row, when, drawn in zip(order, leaves, hidden):
        assert (when[drawn][row[drawn].argsort()].diff() <= 0).all()


def test_training_masks_nest_and_have_their_shares():
    torch.manual_seed(0)
    lengths = torch.randint(1, 50, (4000,))
    inside = lengths_to_mask(lengths, 49)
    keys = sample_keys(torch.arange(4000), Purpose.TRAINING, 3407, 1)
    for hidden, replaced, blank in (training_masks(inside), keyed_masks(inside, keys, 49)):
        assert not (hidden & ~inside).any() and not (replaced & ~hidden).any()
        assert not (blank & ~hidden).any() and not (blank & replaced).any()
        n = hidden.sum()
        assert abs(replaced.sum() / n - 0.1) < 0.01
        assert abs(blank.sum() / (n - replaced.sum()) - 0.88) < 0.01
        # E[cos(pi u / 2)] = 2 / pi of the real tokens are hidden
        assert abs(n / inside.sum() - 2 / torch.pi) < 0.02


def test_at_least_one_token_of_the_padded_length_is_hidden():
    inside = torch.ones(200, 9, dtype=torch.bool)
    assert (training_masks(inside, torch.ones(200))[0].sum(dim=1) == 1).all()


def test_a_clips_masks_do_not_depend_on_the_clips_beside_it():
    """Nor on the length that its batch is padded to: room, which fixes both, is that of the longest clip."""
    lengths, keys = torch.arange(1, 21), sample_keys(torch.arange(20), Purpose.TRAINING, 3407, 1)
    together = keyed_masks(lengths_to_mask(lengths, 49), keys, 49)
    for k, n in enumerate(lengths.tolist()):
        alone = keyed_masks(torch.ones(1, n, dtype=torch.bool), keys[k : k + 1], 49)
        assert all(torch.equal(one[0], every[k, :n]) for one, every in zip(alone, together))
