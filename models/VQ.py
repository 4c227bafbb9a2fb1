"""Vector quantization (van den Oord et al., 2017, arXiv 1711.00937), tuned to be a fair baseline in the
ablation.
"""

import torch
from torch import nn
from torch.nn.functional import embedding, mse_loss

PATIENCE = 20  # steps without use after which a code restarts; tuned on val (results/ablation.md)


class VectorQuantizer(nn.Module):
    """Replaces each vector by its nearest code.

    ||sg(z) - e||^2 trains the codes, commitment_cost * ||z - sg(e)||^2 the encoder, and the output
    is z + sg(e - z); sg stops the gradient. Both losses use the code e: on the straight-through output they
    would give the codes no gradient. Codes start at vectors of the first micro-batch; those that no token has
    used for `patience` training steps restart at vectors of the current step (`finish_step`).
    """

    def __init__(self, num_embeddings=512, embedding_dim=512, commitment_cost=0.25, patience=PATIENCE):
        super().__init__()
        self.commitment_cost, self.patience = commitment_cost, patience
        self.codebook = nn.Parameter(torch.empty(num_embeddings, embedding_dim))
        nn.init.uniform_(self.codebook, -1 / num_embeddings, 1 / num_embeddings)
        self.register_buffer("idle", torch.zeros(num_embeddings, dtype=torch.int64))  # steps since last used
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))
        self.register_buffer("used", torch.zeros(num_embeddings, dtype=torch.int64), persistent=False)
        self.vectors = None  # [N,D] of the last step that had any
        self.collected = []  # of the current step, a tensor for each micro-batch
        self.restarted = None  # bool [K]: the codes that the last step restarted

    @property
    def codebook_size(self):
        return len(self.codebook)

    def nearest(self, z):
        """[...,D] -> index of the nearest code, int64 [...]."""
        flat = z.detach().flatten(end_dim=-2).float()
        # by differences on CUDA: its products are TF32, too coarse to tell near codes apart
        mode = "donot_use_mm_for_euclid_dist" if z.is_cuda else "use_mm_for_euclid_dist_if_necessary"
        index = torch.cdist(flat, self.codebook.detach().float(), compute_mode=mode).argmin(dim=1)
        return index.unflatten(0, z.shape[:-1])

    def lookup(self, index):
        """int64 [...] -> codes [...,D]."""
        return embedding(index, self.codebook)

    def forward(self, z, inside=None):
        """z [B,L,D], inside bool [B,L] (real tokens; None = all) -> (z_q [B,L,D], indices [B,L], loss [])."""
        real = z.flatten(end_dim=-2) if inside is None else z[inside]
        if self.training and len(real):
            self._begin(real.detach())
        index = self.nearest(z)
        if self.training:
            self.used[index if inside is None else index[inside]] = 1
        e = self.lookup(index)
        e_real = e.flatten(end_dim=-2) if inside is None else e[inside]
        loss = mse_loss(e_real, real.detach()) + self.commitment_cost * mse_loss(real, e_real.detach())
        return z + (e - z).detach(), index, loss

    @torch.no_grad()
    def _begin(self, vectors):
        """Collect vectors [N,D] at which idle codes may restart; the first micro-batch of a training starts
        all codes at its own.
        """
        first = self.vectors is None and not self.collected
        if first and not self.started:  # not in a resumed run, whose draws must not shift
            self._restart(~self.started.expand(self.codebook_size), vectors)
        self.collected.append(vectors)

    @torch.no_grad()
    def finish_step(
        self, optimizer=None, all_reduce_sum=lambda tensor: tensor, broadcast=lambda tensors: None
    ):
        """Restart codes that were idle for too long. Call once per training step, after the optimizer.

        optimizer: that of the codes, Adam or AdamW; a restarted code's moments are set to zero.
        all_reduce_sum(tensor) -> the sum over processes; broadcast(tensors): make them the main process's,
        so that codes restart at its vectors.
        """
        used = all_reduce_sum(self.used.clone()) > 0
        first = ~self.started  # each process started its own codes: they all change in `broadcast`
        self.idle.copy_(torch.where(used, 0, self.idle + 1))
        dead = self.idle >= self.patience
        self.restarted = dead | first
        if self.collected:
            one = len(self.collected) == 1
            self.vectors = self.collected[0] if one else torch.cat(self.collected)
            self.collected = []
        if self.vectors is not None:
            self._restart(dead, self.vectors)
        self.idle.masked_fill_(dead, 0)
        self.started.fill_(True)
        self.used.zero_()
        broadcast(self.state_dict().values())
        state = optimizer.state.get(self.codebook, {}) if optimizer else {}
        for name in {"exp_avg", "exp_avg_sq"} & set(state):
            state[name].masked_fill_(self.restarted[:, None], 0)

    @torch.no_grad()
    def copy_restarts(self, average):
        """Copy the codes that the last step restarted into `average`, the moving average of this quantizer:
        averaged with their old values they would lie between the tokens.
        """
        average.codebook.copy_(torch.where(self.restarted[:, None], self.codebook, average.codebook))

    def _restart(self, which, vectors):
        """Put the codes of the mask `which` [K] at random vectors [N,D], without waiting for the device."""
        pick = torch.randint(len(vectors), (len(which),), device=vectors.device)
        jitter = 1e-3 * vectors.std() * torch.randn_like(self.codebook)  # so that two codes never coincide
        self.codebook.copy_(torch.where(which[:, None], vectors[pick] + jitter, self.codebook))
