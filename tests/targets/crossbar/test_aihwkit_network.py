import pytest
import torch

from spokeshave.errors import InvalidArgument, MissingExtra
from spokeshave.models.lenet import LeNet
from spokeshave.optional import available
from spokeshave.targets.crossbar.aihwkit_network import ordinary_network, to_aihwkit
from spokeshave.targets.crossbar.memristor import Memristor
from spokeshave.targets.crossbar.weights_to_tiles import Crossbar


def test_ordinary_layers_multiply_by_what_the_crossbars_hold():
    torch.manual_seed(0)
    net, x = LeNet(), torch.randn(2, 1, 28, 28)
    mapped = Crossbar(device=Memristor.one_level(variation=0.2), wire_resistance_ohm=1.0).map(net)
    plain = ordinary_network(mapped)
    assert type(plain.conv1) is torch.nn.Conv2d
    torch.testing.assert_close(plain(x), mapped(x))


def test_what_is_missing_is_said():
    with pytest.raises(InvalidArgument, match="size"):
        to_aihwkit(LeNet(), (0, 1))
    if not available("aihwkit"):
        with pytest.raises(MissingExtra, match="peer_environments"):
            to_aihwkit(LeNet())


@pytest.mark.skipif(not available("aihwkit"), reason="aihwkit is not installed")
def test_aihwkit_computes_the_same():
    torch.manual_seed(0)
    net, x = LeNet().eval(), torch.randn(2, 1, 28, 28)
    mapped = Crossbar(size=(32, 48), device=Memristor(variation=0.1)).map(net)
    with torch.no_grad():
        torch.testing.assert_close(to_aihwkit(net)(x), net(x), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(to_aihwkit(mapped)(x), mapped(x), atol=1e-4, rtol=1e-4)
