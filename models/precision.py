"""bfloat16, torch.compile, and weights laid out for inference."""

import contextlib
import threading
from functools import partial

import torch
from torch import nn

from models import onednn


def autocast_to(dtype, like):
    """Autocast to `dtype` on the device of the tensor `like`; float32 changes nothing."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(like.device.type, dtype=dtype)


class InferenceWeights:
    """Temporarily replaces the weights of linear layers by bf16 or oneDNN-packed copies.

    bf16: autocast would cast frozen weights anew at every call. float32 on a CPU: packed weights skip
    oneDNN's own reordering at every product. One use at a time: another thread waits, since it would take
    the copies for the weights.
    """

    def __init__(self):
        self.copies, self.packed, self.lock = {}, {}, threading.RLock()

    def __deepcopy__(self, memo):
        return InferenceWeights()  # another module's weights

    @contextlib.contextmanager
    def __call__(self, modules, dtype):
        """Inside, these modules' linear layers compute in `dtype`; after, as before."""
        layers = [m for module in modules for m in module.modules() if isinstance(m, nn.Linear)]
        compiled = any(m._compiled_call_impl for module in modules for m in module.modules())
        with self.lock:
            own = {} if dtype == torch.float32 else {p: p.data for m in layers for p in m.parameters()}
            packed = [] if own or compiled else [layer for layer in layers if onednn.usable(layer)]
            try:
                for p, data in own.items():
                    kept = self.copies.get(p)
                    if kept is None or kept.device != data.device:
                        kept = self.copies[p] = torch.empty_like(data, dtype=dtype)
                    p.data = kept.copy_(data)
                for layer in packed:
                    layer.forward = partial(onednn.linear, weight=self._pack(layer), bias=layer.bias)
                yield
            finally:
                for p, data in own.items():
                    p.data = data
                for layer in packed:
                    layer.__dict__.pop("forward", None)

    def _pack(self, layer):
        """The layer's weights in oneDNN's layout: kept while frozen and unchanged, made anew if they
        train, because a fused optimizer does not raise their version.
        """
        weight = layer.weight
        if weight.requires_grad:
            return onednn.pack(weight.detach())
        now = (weight.data_ptr(), weight._version)
        if self.packed.get(layer, (None,))[0] != now:
            self.packed[layer] = now, onednn.pack(weight)
        return self.packed[layer][1]


def compile_module(module, **options):
    """torch.compile in place, so that the names in its state_dict stay. ValueError where nothing compiles."""
    device = next(module.parameters()).device
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(1, device=device))
    except Exception as error:  # the tool chain raises many kinds
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"torch.compile needs a C++ compiler and Python's headers ({reason[:150]})"
        ) from error
    module.compile(**options)
