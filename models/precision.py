"""bfloat16 and torch.compile for the parts of a model that can take them; everything else stays float32."""

import contextlib

import torch
from torch import nn


def lowered(dtype, like):
    """Autocast to `dtype` on the device of the tensor `like`; float32 changes nothing."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(like.device.type, dtype=dtype)


class LowWeights:
    """The weights of linear layers in low precision while motions are drawn.

    Autocast casts frozen weights anew at every call, which reads them three times over; here they are cast
    once. The copies keep their place in memory from one use to the next, because CUDA graphs hold on to it.
    """

    def __init__(self):
        self.copies = {}

    @contextlib.contextmanager
    def __call__(self, modules, dtype):
        """Inside, these modules' linear layers have weights of `dtype`; after, their own again."""
        layers = (m for module in modules for m in module.modules() if isinstance(m, nn.Linear))
        own = {} if dtype == torch.float32 else {p: p.data for m in layers for p in m.parameters()}
        try:
            for p, data in own.items():
                kept = self.copies.get(p)
                if kept is None or kept.device != data.device:
                    kept = self.copies[p] = torch.empty_like(data, dtype=dtype)
                p.data = kept.copy_(data)
            yield
        finally:
            for p, data in own.items():
                p.data = data


def compile_module(module, **options):
    """torch.compile in place, so that the names in its state_dict stay. ValueError where nothing compiles."""
    device = next(module.parameters()).device
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(1, device=device))
    except Exception as error:  # whatever the tool chain lacks, it says so in its own words
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"torch.compile needs a C++ compiler and Python's headers ({reason[:150]})"
        ) from error
    module.compile(**options)
