"""Training monitors: non-finite loss, throughput, memory."""

import math
import resource
import sys
import time

import torch

from utils import distributed


class Watch:
    """Loss and gradient norm of each step since the last look, with the names of its clips.

    They stay on the device, so that no step waits for it; a look reads them all at once.
    """

    def __init__(self):
        self.steps, self.values = [], []

    def note(self, step, names, loss, norm):
        """loss [] of this process's share, norm [] of the whole step's gradient."""
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
    """Clips a second, the share of the time spent waiting for data, and memory, between two reports."""

    def __init__(self, device):
        self.device, self.last = device, time.perf_counter()
        self._restart()

    def _restart(self):
        self.start, self.clips, self.waited = time.perf_counter(), 0, 0.0

    def waiting(self, batches):
        """These batches, timed while they are fetched."""
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
    """The most that was ever in use, of a CUDA device's memory or of the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
