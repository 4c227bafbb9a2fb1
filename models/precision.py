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
    """Temporarily replaces the weights of linear layers by copies with which inference is faster.

    On a CPU these are in oneDNN's layout, in float32 or bfloat16: no product has to reorder them, and layers
    that read the same input become one product (`side_by_side`). Elsewhere they are just bfloat16, since
    autocast would cast frozen weights anew at every call. One use at a time: another thread waits, since it
    would take the copies for the weights.
    """

    def __init__(self):
        self.copies, self.packed, self.ready, self.lock = {}, {}, {}, threading.RLock()

    def __deepcopy__(self, memo):
        return InferenceWeights()  # a copied module has other weights

    @contextlib.contextmanager
    def __call__(self, modules, dtype):
        """Inside the `with` block these modules' linear layers compute in `dtype`."""
        layers = [m for module in modules for m in module.modules() if isinstance(m, nn.Linear)]
        compiled = any(m._compiled_call_impl for module in modules for m in module.modules())
        packed = [] if compiled else [layer for layer in layers if onednn.usable(layer, dtype)]
        cast = [] if packed or dtype == torch.float32 else [p for m in layers for p in m.parameters()]
        with self.lock:
            own, self.ready, self.dtype = {p: p.data for p in cast}, {}, dtype
            try:
                for p, data in own.items():
                    kept = self.copies.get(p)
                    if kept is None or kept.device != data.device:
                        kept = self.copies[p] = torch.empty_like(data, dtype=dtype)
                    p.data = kept.copy_(data)
                for layer in packed:
                    layer.forward, layer.side_by_side = partial(self._one, layer), self._side_by_side
                yield
            finally:
                for p, data in own.items():
                    p.data = data
                for layer in packed:
                    for name in ("forward", "side_by_side"):
                        layer.__dict__.pop(name, None)

    def _one(self, layer, x):
        weight, bias, _ = self.ready.get((layer,)) or self._prepare((layer,))
        return onednn.linear(x.to(self.dtype), weight, bias)

    def _side_by_side(self, x, *layers):
        weight, bias, widths = self.ready.get(layers) or self._prepare(layers)
        return onednn.linear(x.to(self.dtype), weight, bias).split(widths, dim=-1)

    def _prepare(self, layers):
        """-> these layers' weights and biases as one layer's, in oneDNN's layout, and their widths.

        Made at the first product within a `with` block, and kept for later blocks if they are frozen and
        unchanged. Trainable weights are packed anew: a fused optimizer does not raise their version.
        """
        parameters = [p for layer in layers for p in (layer.weight, layer.bias)]
        now = [self.dtype, *((p.data_ptr(), p._version) for p in parameters)]
        if self.packed.get(layers, (None,))[0] != now or any(p.requires_grad for p in parameters):
            of = parameters[::2], parameters[1::2]  # weights, biases
            weight, bias = (torch.cat([p.detach().to(self.dtype) for p in some]) for some in of)
            self.packed[layers] = now, (onednn.pack(weight), bias, [layer.out_features for layer in layers])
        self.ready[layers] = self.packed[layers][1]
        return self.ready[layers]


def compile_module(module, **options):
    """torch.compile in place, so that the names in its state_dict stay. ValueError without a compiler."""
    device = next(module.parameters()).device
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(1, device=device))
    except Exception as error:  # the tool chain raises many kinds
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"torch.compile needs a C++ compiler and Python's headers ({reason[:150]})"
        ) from error
    module.compile(**options)
