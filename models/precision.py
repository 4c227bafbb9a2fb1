"""bfloat16 and torch.compile for the parts of a model that can take them, oneDNN's products for those that
stay float32 on a CPU.
"""

import contextlib
import os
from functools import cache, partial

import torch
from torch import nn
from torch.autograd.function import once_differentiable

# oneDNN keeps the code of as many operations; with its own 1,024 memory grows where lengths vary
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256")


def autocast_to(dtype, like):
    """Autocast to `dtype` on the device of the tensor `like`; float32 changes nothing."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(like.device.type, dtype=dtype)


class InferenceWeights:
    """The weights of linear layers as drawing wants them; they are put back after, and training goes on.

    In low precision they are cast once: autocast would cast frozen weights anew at every call, which reads
    them three times over. The copies keep their place in memory, because CUDA graphs hold on to it.
    In float32 on a CPU they are laid out once for oneDNN's products, for which PyTorch would need a frozen,
    compiled model (figures in benchmarks/README.md).
    """

    def __init__(self):
        self.copies, self.packed = {}, {}

    def __deepcopy__(self, memo):
        return InferenceWeights()  # another module's weights

    @contextlib.contextmanager
    def __call__(self, modules, dtype):
        """Inside, these modules' linear layers compute in `dtype`; after, as before."""
        layers = [m for module in modules for m in module.modules() if isinstance(m, nn.Linear)]
        compiled = any(m._compiled_call_impl for module in modules for m in module.modules())
        own = {} if dtype == torch.float32 else {p: p.data for m in layers for p in m.parameters()}
        packed = [] if own or compiled else [layer for layer in layers if packable(layer)]
        try:
            for p, data in own.items():
                kept = self.copies.get(p)
                if kept is None or kept.device != data.device:
                    kept = self.copies[p] = torch.empty_like(data, dtype=dtype)
                p.data = kept.copy_(data)
            for layer in packed:
                layer.forward = partial(packed_forward, self._pack(layer), layer.bias)
            yield
        finally:
            for p, data in own.items():
                p.data = data
            for layer in packed:
                layer.__dict__.pop("forward", None)

    def _pack(self, layer):
        """The layer's weights in oneDNN's layout, made anew when they have changed."""
        version, weights = self.packed.get(layer, (None, None))
        now = (layer.weight.data_ptr(), layer.weight._version)
        if version != now:
            weights = pack(layer.weight.detach())
            self.packed[layer] = (now, weights)
        return weights


class Linear(nn.Linear):
    """nn.Linear; float32 on a CPU goes through oneDNN, forth and back.

    PyTorch hands such products to MKL, which keeps to AVX2 on AMD processors that have AVX-512: half the rate
    (figures in benchmarks/README.md).
    """

    def forward(self, x):
        if torch.compiler.is_compiling() or not (packable(self) and x.dtype == torch.float32 and x.numel()):
            return super().forward(x)
        if torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        return Product.apply(x, self.weight, self.bias)


class Product(torch.autograd.Function):
    """x [...,in], weight [out,in], bias [out] or None -> [...,out]"""

    @staticmethod
    def forward(ctx, x, weight, bias):
        rows = pad_rows(x)
        ctx.save_for_backward(rows, weight)
        ctx.shape = x.shape
        return packed_linear(weight, bias, rows)[: rows_of(x)].view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx, slope):
        rows, weight = ctx.saved_tensors
        slopes, wanted = pad_rows(slope), ctx.needs_input_grad
        return (
            packed_linear(weight.T, None, slopes)[: rows_of(slope)].view(ctx.shape) if wanted[0] else None,
            packed_linear(rows.T, None, slopes.T) if wanted[1] else None,
            slopes.sum(0) if wanted[2] else None,
        )


def rows_of(x):
    return x.shape[:-1].numel()


def pad_rows(x):
    """[...,D] -> [N,D] with rows of zeros up to a multiple: oneDNN makes code for every number of rows that
    it meets, which takes time, and keeps the last thousand, which takes memory.
    """
    n = rows_of(x)
    missing = 0 if n <= 16 else -n % (32 if n < 512 else 128)
    return (
        nn.functional.pad(x.reshape(n, -1), (0, 0, 0, missing)) if missing else x.reshape(n, -1).contiguous()
    )


def packable(layer):
    weight = layer.weight
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and packing_works()


@cache
def packing_works():
    """These operations are PyTorch's own, outside its documented interface: tried before they are used."""
    x, weight, bias = torch.eye(8), torch.arange(64.0).reshape(8, 8), torch.ones(8)
    try:
        return torch.equal(packed_linear(pack(weight), bias, x), weight.T + bias)
    except (AttributeError, NotImplementedError, RuntimeError):  # another build of PyTorch: it goes without
        return False


def pack(weight):
    """[out,in] in oneDNN's layout."""
    return torch.ops.mkldnn._reorder_linear_weight(weight, None)


def packed_linear(weights, bias, x):
    return torch.ops.mkldnn._linear_pointwise(x, weights, bias, "none", [], "")


def packed_forward(weights, bias, x):
    return packed_linear(weights, bias, pad_rows(x))[: rows_of(x)].view(*x.shape[:-1], -1)


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
