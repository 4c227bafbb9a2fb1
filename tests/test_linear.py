"""models/layers.Linear: nn.Linear's numbers and gradients, whatever computes them."""

import pytest
import torch
from torch import nn

from models import onednn
from models.layers import Linear, side_by_side
from models.onednn import available
from models.precision import InferenceWeights

needs_onednn = pytest.mark.skipif(not available(), reason="this PyTorch has no oneDNN")


@needs_onednn
@pytest.mark.parametrize("shape", [(7, 24), (3, 5, 24), (2, 3, 4, 24), (1, 24)])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_float64(shape, bias):
    torch.manual_seed(0)
    ours = Linear(24, 40, bias=bias)
    exact = nn.Linear(24, 40, bias=bias).double()
    exact.load_state_dict(ours.state_dict())
    x, slope = torch.randn(shape), torch.randn(*shape[:-1], 40)
    a, b = x.clone().requires_grad_(), x.double().requires_grad_()
    y = ours(a)
    assert "LinearFunction" in type(y.grad_fn).__name__
    y.backward(slope)
    wanted = exact(b)
    wanted.backward(slope.double())
    torch.testing.assert_close(y.double(), wanted, rtol=0, atol=5e-6)
    torch.testing.assert_close(a.grad.double(), b.grad, rtol=0, atol=5e-6)
    for (name, p), q in zip(ours.named_parameters(), exact.parameters()):
        torch.testing.assert_close(p.grad.double(), q.grad, rtol=0, atol=2e-5, msg=name)


@needs_onednn
def test_views_are_read_as_they_are():
    """Transposed and sliced inputs, expanded slopes (of a sum)."""
    torch.manual_seed(0)
    layer = Linear(6, 4)
    x = torch.randn(6, 9).T[::2].requires_grad_()
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight.detach().sum(0).expand(5, 6))
    torch.testing.assert_close(layer.weight.grad, x.detach().sum(0).expand(4, 6))


@pytest.mark.parametrize("case", ["float64", "no rows", "autocast"])
def test_the_rest_goes_pytorchs_way(case):
    layer, x = Linear(6, 4), torch.randn(5, 6)
    if case == "float64":
        y = layer.double()(x.double())
    elif case == "no rows":
        y = layer(x[:0])
        assert y.shape == (0, 4)
    else:
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(x)
        assert y.dtype == torch.bfloat16
    assert "LinearFunction" not in type(y.grad_fn).__name__


@needs_onednn
def test_frozen_weights_get_no_gradient():
    layer, x = Linear(6, 4).requires_grad_(False), torch.randn(5, 6, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is None and layer.bias.grad is None
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(5, 6))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_that_read_the_same_input_are_one_product_for_inference(dtype, monkeypatch):
    if not available(dtype):
        pytest.skip(f"this PyTorch has no oneDNN for {dtype}")
    torch.manual_seed(0)
    products, product = [], onednn.product
    monkeypatch.setattr(onednn, "product", lambda *given: products.append(1) or product(*given))
    layers, x, use = (
        nn.ModuleList([Linear(6, 4), Linear(6, 3)]).requires_grad_(False),
        torch.randn(5, 6),
        InferenceWeights(),
    )
    for _ in range(2):
        wanted = [layer(x) for layer in layers]
        products.clear()
        with use([layers], dtype):
            found = side_by_side(x, *layers)
            assert len(products) == 1
            alone = layers[1](x)
        for a, b in zip((*found, alone), (*wanted, wanted[1])):
            assert a.dtype == dtype
            torch.testing.assert_close(
                a.float(), b, **({} if dtype == torch.float32 else {"rtol": 0, "atol": 0.03})
            )
        layers[0].weight.mul_(2)  # as a checkpoint that is loaded anew
        layers[1].bias.add_(1)
