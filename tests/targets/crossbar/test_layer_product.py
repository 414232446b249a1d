import pytest
import torch
from torch import nn

from spokeshave.errors import InvalidArgument, UnsupportedLayer
from spokeshave.structures.tiles import crossbar_matrices
from spokeshave.targets.crossbar.layer_product import LayerProduct, bias_shape, matrices_of, plain_layer, weight_of

CASES = {
    "linear": (nn.Linear(5, 3), (4, 5)),
    "linear, two axes": (nn.Linear(5, 3), (2, 4, 5)),
    "1d": (nn.Conv1d(4, 6, 3, stride=2, padding=1), (2, 4, 11)),
    "2d": (nn.Conv2d(3, 4, (3, 2), stride=(1, 2), padding=(2, 0), dilation=(2, 1)), (2, 3, 9, 7)),
    "2d, grouped": (nn.Conv2d(4, 6, 3, groups=2), (3, 4, 6, 5)),
    "2d, depthwise": (nn.Conv2d(4, 8, 3, groups=4, padding=1), (1, 4, 5, 5)),
    "2d, reflect": (nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (2, 2, 5, 4)),
    "2d, circular": (nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode="circular"), (2, 2, 5, 4)),
    "2d, same": (nn.Conv2d(2, 3, (4, 3), padding="same", dilation=(2, 1)), (2, 2, 9, 6)),
    "2d, valid": (nn.Conv2d(2, 3, 3, padding="valid"), (2, 2, 5, 6)),
    "2d, one image": (nn.Conv2d(2, 3, 3), (2, 5, 6)),
    "3d": (nn.Conv3d(2, 3, (2, 3, 1), stride=(1, 2, 1), padding=(0, 1, 0)), (2, 2, 4, 5, 3)),
}


@pytest.mark.parametrize("case", CASES)
def test_both_products_are_the_layers(case):
    module, shape = CASES[case]
    module = module.double()
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    product = LayerProduct.of(case, module)
    with torch.no_grad():
        wanted = module(x)
        torch.testing.assert_close(product.native(x, module.weight, module.bias), wanted)
        matrices = crossbar_matrices(case, module)
        assert torch.equal(matrices, matrices_of(product, module.weight))
        assert torch.equal(weight_of(product, matrices), module.weight)
        wires, places = product.lower(x, product.inputs + 3)
        assert not wires[:, product.inputs :].any()
        lowered = product.lift(matrices.transpose(1, 2) @ wires[:, : product.inputs], places)
        torch.testing.assert_close(lowered + module.bias.view(bias_shape(product)), wanted)
    if len(shape) == product.axes + 2:
        assert product.places(tuple(shape[1:])) == tuple(wanted.shape[2:])


def test_lowering_is_differentiable():
    product = LayerProduct.of("conv", nn.Conv2d(2, 2, (2, 1), stride=(1, 2), padding=(1, 0), dilation=(2, 1)))
    x = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: product.lower(x, product.inputs + 1)[0], x)


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(UnsupportedLayer, match="up"):
        LayerProduct.of("up", nn.ConvTranspose2d(1, 1, 2))
    for wrong in (
        {"weight_shape": (4,)},
        {"weight_shape": (4, 2, 3), "stride": (1,)},
        {"weight_shape": (4, 2), "groups": 3},
        {"weight_shape": (4, 0)},
        {"weight_shape": (4, 2, 3), "stride": (0,), "dilation": (1,), "pads": (0, 0)},
        {"weight_shape": (4, 2), "padding_mode": "mirror"},
    ):
        with pytest.raises(InvalidArgument):
            LayerProduct(**wrong)


@pytest.mark.parametrize("case", CASES)
def test_an_ordinary_layer_of_the_geometry(case):
    module, shape = CASES[case]
    product = LayerProduct.of(case, module)
    x = torch.randn(shape, dtype=module.weight.dtype)
    torch.testing.assert_close(plain_layer(product, module.weight.detach(), module.bias)(x), module(x))


def test_sides_that_differ():
    weight, x = torch.randn(3, 2, 2), torch.randn(4, 2, 5)
    product = LayerProduct((3, 2, 2), 1, (1,), (1,), (0, 1))
    wanted = torch.nn.functional.conv1d(torch.nn.functional.pad(x, (0, 1)), weight)
    torch.testing.assert_close(product.native(x, weight, None), wanted)
    with pytest.raises(UnsupportedLayer, match="both sides"):
        plain_layer(product, weight)
