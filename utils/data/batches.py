"""Batches of a data set's clips: padded, in an order that follows from (seed, epoch), loaded by workers.

A training's batches are global, whatever the number of processes: each process loads its share of each batch.
"""

import math
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Sampler

from models.counter_rng import Purpose, rng
from utils import distributed
from utils.data.loader_processes import SignalSafeLoader, block_stops


@dataclass
class Batch:
    """motion [B,T,dim] z-normalised, zero past each end; m_lens [B] frames; text [B,E] or, with words,
    [B,1+W,E], or None; names, captions, tokens: lists of B; index [B]: the clips' places in their set.
    """

    motion: torch.Tensor
    m_lens: torch.Tensor
    names: list
    captions: list
    tokens: list
    text: torch.Tensor | None
    index: torch.Tensor

    def __len__(self):
        return len(self.names)

    def to(self, device):
        return self._each(lambda x: x.to(device, non_blocking=True))

    def pin_memory(self):
        """Called by the DataLoader, so that `to` need not wait."""
        return self._each(torch.Tensor.pin_memory)

    def _each(self, move):
        return replace(self, **{key: move(x) for key, x in vars(self).items() if torch.is_tensor(x)})


def collate(samples):
    """B samples (motion [T_i,dim], name, caption, text, index) -> Batch, padded to the longest.

    text: [E], or with words [1+W_i,E], or None.
    """
    motions, names, captions, texts, index = zip(*samples)
    return Batch(
        motion=pad_sequence(motions, batch_first=True),
        m_lens=torch.tensor([len(motion) for motion in motions]),
        names=list(names),
        captions=[caption.text if caption else "" for caption in captions],
        tokens=[list(caption.tokens) if caption else [] for caption in captions],
        text=None if texts[0] is None else pad_sequence(texts, batch_first=True),
        index=torch.tensor(index),
    )


def in_micro_batches(samples, micro_batches):
    """The samples of a step, sorted by length -> at most `micro_batches` Batches, none of them empty."""
    return [
        collate([samples[i] for i in rows])
        for rows in np.array_split(np.arange(len(samples)), micro_batches)
        if len(rows)
    ]


class AddressedBatches(Sampler):
    """A sampler that can resume: batches of (epoch, index), shuffled by address (seed, epoch), from batch
    `start` on.

    lengths [n]: by these the clips of a batch are sorted, so that a micro-batch has clips of similar length.
    shard: the entries of each batch for this process. Neither changes which clips make a batch.
    """

    def __init__(self, n, batch_size, address, start=0, shuffle=True, lengths=None, shard=slice(None)):
        self.n, self.batch_size, self.address = n, batch_size, address
        self.start, self.shuffle = start, shuffle
        self.lengths, self.shard = lengths, shard

    def __len__(self):
        return max(math.ceil(self.n / self.batch_size) - self.start, 0)

    def __iter__(self):
        order = rng(Purpose.ORDER, *self.address).permutation(self.n) if self.shuffle else np.arange(self.n)
        for first in range(self.start * self.batch_size, self.n, self.batch_size):
            rows = order[first : first + self.batch_size]
            if self.lengths is not None:
                rows = rows[np.argsort(self.lengths[rows], kind="stable")]
            yield [(self.address[1], int(i)) for i in rows[self.shard]]


def loader(dataset, batch_size, epoch=0, num_workers=0):
    """The batches of one epoch, in order; every clip counts, the last batch may be smaller."""
    batches = AddressedBatches(len(dataset), batch_size, (0, epoch), shuffle=False)
    return DataLoader(dataset, batch_sampler=batches, collate_fn=collate, num_workers=num_workers)


def shared_loader(dataset, loading, device, epoch=0, start=0, shuffle=False):
    """The batches of one epoch for this process: for each global batch a list of its micro-batches.
    loading: a LoaderConfig.
    """
    batches = AddressedBatches(
        len(dataset),
        loading.batch_size,
        (loading.seed, epoch),
        start,
        shuffle,
        lengths=getattr(dataset, "lengths", None),
        shard=distributed.shard(),
    )
    return SignalSafeLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=partial(in_micro_batches, micro_batches=loading.grad_accum),
        num_workers=loading.num_workers,
        pin_memory=device.type == "cuda",
        worker_init_fn=block_stops,
    )
