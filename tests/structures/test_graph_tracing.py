import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from network_zoo import ZOO, build
from spokeshave.errors import InvalidArgument
from spokeshave.structures.graph_tracing import as_inputs, map_tensors, private_copy, restore_modes, trace, with_batch


@pytest.mark.parametrize("name", sorted(ZOO))
def test_the_canonical_graph_computes_what_the_model_computes(name):
    network, example = build(name, 1)
    traced = trace(network, example)
    x = torch.randn(2, *example.shape[1:])
    new, old = pytree.tree_leaves(traced.graph(x)), pytree.tree_leaves(network(x))
    for a, b in zip(new, old, strict=True):
        torch.testing.assert_close(a, b)
    assert traced.notes == []


def test_size_lock_is_found_by_trying():
    locked = {name for name in ZOO if trace(*build(name, 0)).size_locked}
    assert locked == {"lenet", "convnet", "caffenet", "vit", "mlp", "generator"}


def test_private_copy_shares_nothing_and_keeps_the_original_working():
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    nn.utils.parametrizations.spectral_norm(network[0])
    nn.utils.prune.l1_unstructured(network[1], "weight", amount=4)
    network.eval()
    x = torch.randn(2, 3)
    before = network(x)
    duplicate = private_copy(network)
    assert type(duplicate.get_submodule("0")) is nn.Linear and type(duplicate.get_submodule("1")) is nn.Linear
    torch.testing.assert_close(duplicate(x), before)
    torch.testing.assert_close(network(x), before)
    with torch.no_grad():
        for parameter in duplicate.parameters():
            parameter.zero_()
    torch.testing.assert_close(network(x), before)


def test_inputs_are_taken_apart_and_resized():
    x = torch.arange(6.0).reshape(2, 3)
    assert with_batch((x, 4, {"k": x}), 3)[0].tolist() == [[0, 1, 2], [3, 4, 5], [0, 1, 2]]  # type: ignore[union-attr]
    doubled = map_tensors(lambda tensor: 2 * tensor, {"a": [x, "b"]})
    assert isinstance(doubled, dict) and doubled["a"][0].equal(2 * x) and doubled["a"][1] == "b"
    assert as_inputs([x]) == (x,)
    with pytest.raises(InvalidArgument, match="expected a tensor"):
        as_inputs("nothing")


def test_modes_come_back_by_name():
    network = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout()))
    network.train()
    network[0].eval()
    traced = trace(network, torch.zeros(1, 2))
    restore_modes(traced.graph, traced.training)
    flags = {name: module.training for name, module in traced.graph.named_modules()}
    assert flags == {"": True, "0": False, "1": True, "1.0": True}


class Reshaped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(-1, 12)


def test_a_batch_of_one_does_not_confuse_axes():
    traced = trace(Reshaped(), torch.zeros(1, 3, 4))
    assert traced.graph(torch.zeros(5, 3, 4)).shape == (5, 12)
