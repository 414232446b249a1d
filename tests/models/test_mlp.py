"""The MLP is matrix products with ReLU between them."""

import torch

from spokeshave.models import MLP


def test_default_is_the_papers_and_forward_matches_matrix_products():
    torch.manual_seed(0)
    net, x = MLP(), torch.randn(2, 1, 28, 28)
    assert sum(p.numel() for p in net.parameters()) == 784 * 500 + 500 + 500 * 300 + 300 + 300 * 10 + 10
    hidden = x.flatten(1)
    for name in ("ip1", "ip2"):
        layer = net.get_submodule(name)
        hidden = (hidden @ layer.weight.T + layer.bias).clamp_min(0)
    assert torch.allclose(net(x), hidden @ net.ip3.weight.T + net.ip3.bias, atol=1e-5)
