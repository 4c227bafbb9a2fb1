"""Distributed training: rank and share of this process; sums, lists and decisions over all processes.

`torchrun` starts the processes, `init_distributed` joins them. Nothing wraps models or loaders: gradients are
summed over the global batch and divided by its global count. A single process runs the same code; every
function below then returns what it was given. All processes see the same folders and make the same calls.
"""

import contextlib
import os
import sys

import torch
import torch.distributed as dist

from utils.errors import BadInput


def world_size():
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank():
    return dist.get_rank() if world_size() > 1 else 0


def launched():
    """How many processes were started together, by the environment. Raises BadInput."""
    text = os.environ.get("WORLD_SIZE") or "1"
    if not (text.isdecimal() and int(text) > 0):
        raise BadInput(f"WORLD_SIZE is {text!r} in the environment, no number of processes: unset it")
    return int(text)


def shard():
    """The slice of a list that is this process's share."""
    return slice(rank(), None, world_size())


def init_distributed(device):
    """Join the processes that were launched together, if there are several. -> this one's device

    On CUDA tensors travel over NCCL; NCCL knows no CPU tensors, so counts and Python objects take gloo.
    """
    if launched() == 1 or world_size() > 1:
        return device
    backend = "gloo"
    if device.type == "cuda":
        backend, device = "cuda:nccl,cpu:gloo", torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    try:
        dist.init_process_group(backend)
    except ValueError as error:  # such as a WORLD_SIZE that another program left behind
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"WORLD_SIZE is set, but {reason}: start with torchrun, or unset it") from None
    if rank():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  only the main process prints
    return device


def all_reduce_sum(tensor):
    """The sum of all processes' tensors, in place."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def all_gather(items):
    """All processes' lists in one."""
    if world_size() == 1:
        return items
    lists = [None] * world_size()
    dist.all_gather_object(lists, items)
    return [item for one in lists for item in one]


def all_reduce_max(number):
    """Max over processes of a Python int; over gloo, so that no GPU is waited for."""
    if world_size() == 1:
        return number
    largest = torch.tensor(number)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest)


def broadcast(tensors):
    """Make these tensors those of the main process."""
    if world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def pool_gradients(parameters, count):
    """Divide the sum of the gradients over all micro-batches of all processes by the sum of their counts.

    One all-reduce. A process without a micro-batch, at the end of an epoch, contributes zeros: every
    parameter takes part in the loss.
    """
    if world_size() > 1:
        for p in parameters:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
    gradients = [p.grad for p in parameters if p.grad is not None]
    if world_size() > 1:
        flat = torch.cat([*(g.flatten() for g in gradients), gradients[0].new_full((1,), count)])
        *sums, count = all_reduce_sum(flat).split([*(g.numel() for g in gradients), 1])
        torch._foreach_copy_(gradients, [s.view_as(g) for s, g in zip(sums, gradients)])
        count = count[0].clamp(min=1)
    torch._foreach_div_(gradients, count if world_size() > 1 else max(count, 1))


@contextlib.contextmanager
def main_first():
    """The first process of each machine runs the block before the others, which then find its caches."""
    waits = int(os.environ.get("LOCAL_RANK", 0)) > 0
    if waits:
        all_reduce_max(0)
    try:
        yield
    finally:
        if not waits:
            all_reduce_max(0)


def refuse_several(what):
    """BadInput if several processes were launched. what: the program, which needs a single one."""
    if launched() > 1:
        raise BadInput(f"{what} runs in one process: start it without torchrun")


def on_main(action, *given, **named):
    """Call `action` in the main process. If it fails there, the others exit without a message."""
    failure = None
    if rank() == 0:
        try:
            action(*given, **named)
        except Exception as error:
            failure = error
    failed = all_reduce_max(int(failure is not None))
    if failure is not None:
        raise failure
    if failed:
        raise SystemExit(2)
