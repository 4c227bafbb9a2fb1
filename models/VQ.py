"""Vector quantization (van den Oord et al., 2017, arXiv 1711.00937): the ablation's control, meant to be a
fair one.
"""

import torch
from torch import nn
from torch.nn.functional import embedding, mse_loss


class VectorQuantizer(nn.Module):
    """Replaces each vector by its nearest code.

    ||sg(z) - e||^2 trains the codes, commitment_cost * ||z - sg(e)||^2 the encoder, and z + sg(e - z) goes
    on. Both losses are taken on the code itself: taken on the straight-through output, they would give the
    codes no gradient. Codes that no token has used for `patience` training steps restart at vectors of the
    current batch.
    """

    def __init__(self, num_embeddings=512, embedding_dim=512, commitment_cost=0.25, patience=100):
        super().__init__()
        self.commitment_cost, self.patience = commitment_cost, patience
        self.codebook = nn.Parameter(torch.empty(num_embeddings, embedding_dim))
        nn.init.uniform_(self.codebook, -1 / num_embeddings, 1 / num_embeddings)
        self.register_buffer("idle", torch.zeros(num_embeddings, dtype=torch.int64))  # steps since last used
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))

    @property
    def codebook_size(self):
        return len(self.codebook)

    def nearest(self, z):
        """[...,D] -> index of the nearest code, int64 [...]."""
        flat = z.detach().flatten(end_dim=-2).float()
        index = torch.cdist(flat, self.codebook.detach().float()).argmin(dim=1)
        return index.unflatten(0, z.shape[:-1])

    def lookup(self, index):
        """int64 [...] -> codes [...,D]."""
        return embedding(index, self.codebook)

    def forward(self, z, inside=None):
        """z [B,L,D], inside bool [B,L] (real tokens; None = all) -> (z_q [B,L,D], indices [B,L], loss [])."""
        real = z.flatten(end_dim=-2) if inside is None else z[inside]
        if self.training:
            self._restart(real.detach())
        index = self.nearest(z)
        e = self.lookup(index)
        e_real = e.flatten(end_dim=-2) if inside is None else e[inside]
        loss = mse_loss(e_real, real.detach()) + self.commitment_cost * mse_loss(real, e_real.detach())
        return z + (e - z).detach(), index, loss

    @torch.no_grad()
    def _restart(self, vectors):
        """Start all codes at vectors of the first batch, and idle ones at vectors of this batch. vectors
        [N,D]
        """
        dead = self.idle >= self.patience if self.started else torch.ones_like(self.idle, dtype=torch.bool)
        pick = torch.randint(len(vectors), (len(dead),), device=vectors.device)
        jitter = 1e-3 * vectors.std() * torch.randn_like(self.codebook)  # so that two codes never coincide
        self.codebook.copy_(torch.where(dead[:, None], vectors[pick] + jitter, self.codebook))
        self.started.fill_(True)
        used = torch.zeros_like(dead)
        used[self.nearest(vectors)] = True
        self.idle.copy_(torch.where(used | dead, 0, self.idle + 1))
