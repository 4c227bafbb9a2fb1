"""Linear layers on a CPU by oneDNN: in float32, where PyTorch itself uses MKL, and with packed weights.

MKL keeps to AVX2 on AMD processors that have AVX-512: half the rate (figures in benchmarks/README.md). These
are PyTorch's own operations, but outside its documented interface, so `available` tries them before they are
used.
"""

import os
from functools import cache

import torch
from torch import nn
from torch.autograd.function import once_differentiable

# oneDNN caches so many compiled operations; with its default, 1,024, memory grows where lengths vary
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256")


@cache
def available(dtype=torch.float32):
    """Whether this build of PyTorch has the operations for this dtype, and they compute correctly."""
    x, weight, bias = torch.eye(8), torch.arange(64.0).reshape(8, 8), torch.ones(8)
    x, weight, bias = (tensor.to(dtype) for tensor in (x, weight, bias))
    try:
        return torch.equal(product(x, pack(weight), bias), weight.T + bias)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False


def usable(layer, dtype=torch.float32):
    """Whether this layer can go through oneDNN in `dtype`; its own weights must be float32."""
    weight = layer.weight
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and available(dtype)


def pack(weight):
    """Weight [out,in] -> the same in oneDNN's own layout, for `product` and `linear`."""
    return torch.ops.mkldnn._reorder_linear_weight(weight, None)


def product(rows, weight, bias):
    """rows [N,in], weight [out,in] (packed or not), bias [out] or None -> [N,out]."""
    return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")


def linear(x, weight, bias):
    """x [...,in] -> [...,out], without a gradient."""
    return product(pad_rows(x), weight, bias)[: count_rows(x)].view(*x.shape[:-1], -1)


class LinearFunction(torch.autograd.Function):
    """`linear` with gradients, for weights that are not packed."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        rows = pad_rows(x)
        ctx.save_for_backward(rows, weight)
        ctx.shape = x.shape
        return product(rows, weight, bias)[: count_rows(x)].view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        rows, weight = ctx.saved_tensors
        gradients, wanted = pad_rows(gradient), ctx.needs_input_grad
        return (
            product(gradients, weight.T, None)[: count_rows(gradient)].view(ctx.shape) if wanted[0] else None,
            product(gradients.T, rows.T, None) if wanted[1] else None,
            gradients.sum(0) if wanted[2] else None,
        )


def count_rows(x):
    return x.shape[:-1].numel()


def pad_rows(x):
    """[...,D] -> [N,D], padded to one of few row counts: oneDNN compiles and caches code for each
    shape, which takes time and memory.
    """
    n = count_rows(x)
    missing = 0 if n <= 64 else -n % (32 if n < 512 else 128)
    rows = x.reshape(n, -1)
    return nn.functional.pad(rows, (0, 0, 0, missing)) if missing else rows.contiguous()
