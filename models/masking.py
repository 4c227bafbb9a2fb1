"""Which tokens are hidden, how many, and when each is revealed. B clips, L tokens, S rounds."""

import math

import torch


def lengths_to_mask(lengths, L):
    """[B] -> bool [B,L], True on the first `lengths` tokens."""
    return torch.arange(L, device=lengths.device) < lengths[:, None]


def zero_past(x, lengths, dim=1):
    """x [B,...] with zeros from each row's length [B] on, along the axis `dim`."""
    inside = lengths_to_mask(lengths, x.shape[dim])
    return x * inside.view([n if axis in (0, dim) else 1 for axis, n in enumerate(x.shape)])


def cosine_schedule(u):
    """Share of hidden tokens at time u in [0,1] (MaskGIT, Chang et al., CVPR 2022): cos(pi u / 2)."""
    return torch.cos(u * math.pi / 2)


def training_masks(inside, u=None, order=None, corruption=None):
    """The three masks of a training step. inside: bool [B,L], True on real tokens.

    A random time u [B] per clip hides round(cos(pi u/2) R) tokens, at least one, drawn over a padded length R
    and cut to the real ones; order [B,R], R >= L, and corruption [B,L] are uniform in [0,1]. -> bool [B,L]:
    hidden (the loss counts them); replaced by random latents (10% of the hidden); blank, replaced by the mask
    latent (88% of the other hidden). The rest of the hidden keep their true latent.
    """
    (B, L), device = inside.shape, inside.device
    u = torch.rand(B, device=device) if u is None else u
    order = torch.rand(B, L, device=device) if order is None else order
    corruption = torch.rand(B, L, device=device) if corruption is None else corruption
    n_hidden = (cosine_schedule(u) * order.shape[1]).round().clamp(min=1)
    # the argsort of random numbers is a random permutation: these are n_hidden random places
    hidden = (order.argsort(dim=1) < n_hidden[:, None])[:, :L] & inside
    replaced = hidden & (corruption < 0.1)
    return hidden, replaced, hidden & ~replaced & (corruption < 0.1 + 0.9 * 0.88)


def hidden_counts(n_hidden, rounds):
    """How many of n_hidden [B] tokens are hidden at the start of each round, and after the last: int64
    [B,S+1].
    """
    share = cosine_schedule(torch.linspace(0, 1, rounds))
    counts = (n_hidden[:, None] * share).round().clamp(min=1).long()
    counts = torch.minimum(counts, n_hidden[:, None])
    return torch.cat([counts, torch.zeros_like(counts[:, :1])], dim=1)


def reveal_rounds(hidden, order, rounds):
    """The round after which each token leaves the mask: int64 [B,L], -1 for tokens that are not hidden.

    hidden bool [B,L]; order [B,L]: the smaller its number, the longer a token stays hidden.
    """
    rank = order.masked_fill(~hidden, math.inf).argsort(dim=1).argsort(dim=1)
    counts = hidden_counts(hidden.sum(dim=1), rounds)  # [B,S+1], falling
    still_hidden = rank[:, :, None] < counts[:, None, 1:]  # [B,L,S]: hidden after round s
    return torch.where(hidden, still_hidden.sum(dim=2), -1)


def tokens_by_round(leaves, rounds):
    """The tokens to draw, sorted by round. leaves int64 [B,L], as from reveal_rounds -> int64 [3,n]: clip,
    place, and rank within its clip and round of each token; then two lists of S: the number of tokens of
    each round, and the largest number that one clip has in it.
    """
    clips, places = (leaves >= 0).nonzero().T
    when = leaves[clips, places]
    earlier = (leaves[:, :, None] == leaves[:, None]).tril(-1).sum(dim=2)  # tokens of the same round
    tokens = torch.stack([clips, places, earlier[clips, places]])[:, when.argsort(stable=True)]
    counts = torch.bincount(when, minlength=rounds).tolist()
    most = [int(numbers.max()) + 1 if len(numbers) else 0 for numbers in tokens[2].split(counts)]
    return tokens, counts, most
