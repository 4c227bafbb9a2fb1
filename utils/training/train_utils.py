"""What all trainings share: tokens, optimizer and schedules, EMA, running means, graceful stops."""

import contextlib
import copy
import math
import signal
from collections import defaultdict

import torch

from models.AE import STRIDE
from utils import distributed


def tokenized(ae, batch, device):
    """A Batch on the host -> latents, targets, text on the device; m_lens in tokens, on the host."""
    on_device = batch.to(device)
    return *ae.tokenize(on_device.motion, batch.m_lens), on_device.text, batch.m_lens // STRIDE


def parameter_count(module):
    return sum(p.numel() for p in module.parameters())


def learning_rate(optimizer, training, steps_per_epoch):
    """The schedule of a TrainingConfig: linear warm-up to the full rate; then times `lr_decay` at each
    milestone, or down to 0 at the last step by a cosine.
    """
    steps = training.epoch * steps_per_epoch
    steps = min(steps, training.max_iters or steps)

    def factor(step):
        share = min(1.0, (step + 1) / max(training.warm_up_iter, 1))
        if training.schedule == "milestones":
            return share * training.lr_decay ** sum(step >= milestone for milestone in training.milestones)
        return share * 0.5 * (1 + math.cos(math.pi * min(step / steps, 1)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def optimizer_step(optimizer, scheduler, max_norm=None):
    """One step of optimizer and schedule. -> the gradients' norm [] before it is clipped to `max_norm`"""
    parameters = [p for p in parameters_of(optimizer) if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
    if max_norm:
        torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    optimizer.step()
    scheduler.step()
    return norm


def parameters_of(optimizer):
    return [p for group in optimizer.param_groups for p in group["params"]]


def adamw(module, training):
    """AdamW with the rates of a TrainingConfig. Fused, which on a CPU also takes a fifth of the time (13
    million parameters: 8 ms instead of 43).
    """
    return torch.optim.AdamW(
        module.parameters(), training.lr, betas=(0.9, 0.99), weight_decay=training.weight_decay, fused=True
    )


class EMA:
    """Exponential moving average of a module's parameters, in their own precision; buffers are copied.

    The decay is min(decay, (1 + step) / (10 + step)), so that a short run is not judged on its initial
    weights.
    """

    def __init__(self, module, decay):
        self.model = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, module, step):
        decay = min(self.decay, (1 + step) / (10 + step))
        parameters = [p.detach() for p in module.parameters()]
        torch._foreach_lerp_(list(self.model.parameters()), parameters, 1 - decay)
        for average, buffer in zip(self.model.buffers(), module.buffers()):
            average.copy_(buffer)


@contextlib.contextmanager
def inference(*modules):
    """Eval mode without gradients; on exit every submodule has its own mode back."""
    modes = [(m, m.training) for module in modules for m in module.modules()]
    for module in modules:
        module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


class RunningMean:
    """Means of named scalars over all processes, since the last `pop`; only that waits for the device."""

    def __init__(self):
        self.totals, self.counts = defaultdict(float), defaultdict(int)

    def add(self, count=1, **values):
        """values: numbers or tensors [], each a sum of `count` values."""
        for name, value in values.items():
            self.totals[name] = self.totals[name] + (value.detach() if torch.is_tensor(value) else value)
            self.counts[name] += count

    def pop(self):
        mine = [(name, float(total), self.counts[name]) for name, total in self.totals.items()]
        self.__init__()
        totals, counts = defaultdict(float), defaultdict(int)
        for name, total, count in distributed.all_gather(mine):
            totals[name] += total
            counts[name] += count
        return {name: total / max(counts[name], 1) for name, total in totals.items()}


def format_scalars(values):
    """{name: number} -> "name 1.234  name 5.678"; None is left out."""
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items() if value is not None)


class CodeUsage:
    """Counts code indices, over all processes, to report usage and perplexity of a code book."""

    def __init__(self, codebook_size, device):
        """device: that of the indices, so that no step waits; the same kind in each process."""
        self.counts = torch.zeros(codebook_size, dtype=torch.int64, device=device)

    def add(self, indices, inside=None):
        """indices: int64 of any shape; inside: bool of the same shape, which of them count. Those of a NaN
        lie beyond the code book and do not: the training's own check of its loss is to report it.
        """
        known = (indices >= 0) & (indices < len(self.counts))
        counted = (known if inside is None else known & inside).to(indices.dtype)
        indices = indices.clamp(0, len(self.counts) - 1)
        self.counts.scatter_add_(0, indices.flatten(), counted.flatten())

    def report(self):
        """usage = distinct codes / min(code book, tokens seen); perplexity = exp(entropy)."""
        counts = distributed.all_reduce_sum(self.counts.clone()).cpu()
        total, used = int(counts.sum()), int((counts > 0).sum())
        p = counts[counts > 0].double() / max(total, 1)
        return {
            "codes_used": used,
            "tokens": total,
            "usage": used / max(min(len(counts), total), 1),
            "perplexity": float(torch.exp(-(p * p.log()).sum())),
        }


class GracefulStop:
    """SIGTERM and Ctrl-C ask the loop to finish its step, save and leave; a second Ctrl-C leaves at once.

    A launcher that gets Ctrl-C sends SIGTERM to its processes, which got Ctrl-C too: not a second Ctrl-C.
    """

    def __init__(self):
        self.signal = None
        self.previous = {n: signal.signal(n, self._note) for n in (signal.SIGTERM, signal.SIGINT)}

    def restore(self):
        """Put the previous signal handlers back."""
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _note(self, number, _frame):
        if self.signal == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = self.signal or number
