"""Training monitors: non-finite loss, throughput, memory, attention to neighbours."""

import math
import resource
import sys
import time

import torch

from models.masking import lengths_to_mask
from utils import distributed


class Watch:
    """Finds the first step whose loss or gradient norm is not finite, and names its clips.

    Values stay on the device, so that no step waits for it; `look` reads all new values at once.
    """

    def __init__(self):
        self.steps, self.values = [], []

    def note(self, step, names, loss, norm):
        """Store a step's loss [] of this process and norm [] of the whole gradient; names: of its clips."""
        self.steps.append((step, names))
        self.values.append(torch.stack([loss.detach().float(), norm.float()]))

    def look(self):
        """None if all is finite on all processes; else a line on the first step where it was not."""
        values = torch.stack(self.values).tolist() if self.values else []
        broken = [
            (*step, *pair) for step, pair in zip(self.steps, values) if not all(map(math.isfinite, pair))
        ]
        self.__init__()
        broken = distributed.all_gather(broken[:1])
        if not broken:
            return None
        first = min(step for step, *_ in broken)
        broken = [entry for entry in broken if entry[0] == first]
        losses = [entry for entry in broken if not math.isfinite(entry[2])]
        what, value = ("loss", losses[0][2]) if losses else ("gradient norm", broken[0][3])
        names = [name for entry in losses or broken for name in entry[1]]
        names = names[:8] + ["..."] * (len(names) > 8)
        return f"the {what} is {value} at step {first} (clips: {', '.join(names)})"


class Meter:
    """Clips per second and the share of time spent waiting for data, between two reports; memory."""

    def __init__(self, device):
        self.device, self.last = device, time.perf_counter()
        self._restart()

    def _restart(self):
        self.start, self.clips, self.waited = time.perf_counter(), 0, 0.0

    def waiting(self, batches):
        """Yield these batches, and add up the time spent waiting for them."""
        batches = iter(batches)
        while True:
            before = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - before
            if batch is None:
                return
            yield batch

    def lap(self):
        """Seconds since the last lap."""
        now = time.perf_counter()
        seconds, self.last = now - self.last, now
        return seconds

    def report(self):
        seconds = max(time.perf_counter() - self.start, 1e-9)
        rates = {
            "clips_per_second": self.clips / seconds,
            "data_wait": self.waited / seconds,
            "memory_mb": memory_mb(self.device),
        }
        self._restart()
        return rates


def memory_mb(device):
    """Peak memory of the CUDA device, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


@torch.no_grad()
def neighbour_attention(mardm, latents, text, m_lens):
    """Attention of hidden tokens to the tokens before and after them [], from 0 to 1, to monitor a training.

    Every second token is hidden. For each offset, -1 and +1, the head with the most attention counts; the
    result is the mean over offsets and layers. Without neighbour heads it is about 1 / L. Arguments: as in
    `MARDM.forward_loss`.
    """
    latents = latents.mT
    inside = lengths_to_mask(m_lens.to(latents.device), latents.shape[1])
    hidden = torch.arange(latents.shape[1], device=latents.device) % 2 == 1
    x = torch.where(hidden[:, None], mardm.mask_latent, latents) * inside[..., None]
    maps = []
    hooks = [
        block.attn.register_forward_pre_hook(lambda attn, args: maps.append(attn.weights(*args)))
        for block in mardm.MARTransformer
    ]
    try:
        with torch.compiler.set_stance("force_eager"):  # compiled blocks would not call the hooks
            mardm.transformer(x, text, inside)
    finally:
        for hook in hooks:
            hook.remove()
    queries = (hidden & inside)[:, 1:-1] & inside[:, 2:]  # both neighbours are real
    best = [
        weights.diagonal(offset, dim1=-2, dim2=-1)[..., start : start + queries.shape[1]]
        .masked_fill(~queries[:, None], 0)
        .sum(dim=(0, 2))
        .max()
        for weights in maps
        for offset, start in ((-1, 0), (1, 1))
    ]
    return torch.stack(best).mean() / queries.sum().clamp(min=1)
