"""Statistics of the training set's tokens, taken before a generator's training begins."""

from itertools import chain

import torch
from tqdm import tqdm

from models.AE import STRIDE
from models.masking import lengths_to_mask
from utils import distributed
from utils.data.batches import collate, shared_loader
from utils.errors import BadInput


def measure_targets(ae, train_set, loading, device):
    """Mean and standard deviation [target_dim] of all training tokens. BadInput if there is only one."""
    sums = torch.zeros(3, ae.target_dim, dtype=torch.float64)  # on the host: not every device has float64
    steps = tqdm(shared_loader(train_set, loading, device), desc="measuring tokens", unit="it", leave=False)
    for batch in chain.from_iterable(steps):
        targets = ae.tokenize(batch.motion.to(device), batch.m_lens)[1].cpu().double()
        inside = lengths_to_mask(batch.m_lens // STRIDE, targets.shape[1])[..., None].double()
        powers = inside, targets * inside, targets.square() * inside
        sums += torch.stack([x.sum(dim=(0, 1)).expand(ae.target_dim) for x in powers])
    n, first, second = distributed.all_reduce_sum(sums)
    if n[0] < 2:
        raise BadInput(
            "the training set is one token (four frames), which has no deviation: "
            "add clips, or pass --raw_targets"
        )
    variance = (second - first.square() / n) / (n - 1)
    return (first / n).float(), variance.clamp(min=0).sqrt().float()


def keep_real_tokens(ae, train_set, device, clips=256):
    """Give a continuous autoencoder the tokens of `clips` clips, spread over the set, as its pool of random
    replacements (`AE.random_replacements`). Others draw them from their code book.
    """
    if ae.codebook_size is not None:
        return
    chosen = torch.linspace(0, len(train_set) - 1, min(clips, len(train_set))).long().tolist()
    batch = collate([train_set[0, i] for i in chosen])
    ae.keep_real_tokens(batch.motion.to(device), batch.m_lens)
