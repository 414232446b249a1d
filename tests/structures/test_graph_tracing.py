import io
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.utils import _pytree as pytree

from network_zoo import ZOO, build
from spokeshave.errors import UnsupportedLayer
from spokeshave.models import LeNet
from spokeshave.structures.graph_tracing import private_copy, restore_modes, trace


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


def test_private_copy_in_train_mode_holds_the_weights_of_eval_mode():
    torch.manual_seed(0)
    network = nn.utils.parametrizations.spectral_norm(nn.Linear(5, 4), n_power_iterations=1).train()
    vectors = network.parametrizations.weight[0]._u.clone()  # type: ignore[union-attr, index]
    duplicate = private_copy(network)
    assert duplicate.training and network.training
    assert torch.equal(network.parametrizations.weight[0]._u, vectors)  # type: ignore[union-attr, index]
    assert torch.equal(duplicate.weight, network.eval().weight)  # type: ignore[arg-type]


def test_the_reference_is_not_the_copy_that_is_rewritten():
    network = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)))
    traced = trace(network, torch.zeros(1, 3))
    assert nn.utils.parametrize.is_parametrized(traced.reference.get_submodule("0"))
    assert type(traced.plain.get_submodule("0")) is nn.Linear
    x = torch.randn(2, 3)
    assert torch.equal(traced.reference(x), network(x)) and not traced.reference.training


def test_the_graph_is_saved_and_loaded():
    network, example = build("resnet", 0)
    graph = trace(network, example).graph
    stored = io.BytesIO()
    torch.save(graph, stored)
    stored.seek(0)
    assert torch.equal(torch.load(stored, weights_only=False)(example), graph(example))


class Fixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(1, 4, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.places


def test_a_graph_whose_arguments_have_shapes_in_their_types_is_saved_and_loaded():
    images = torch.rand(2, 1, 28, 28)
    graph = trace(LeNet(), images).graph
    again = pickle.loads(pickle.dumps(graph))
    torch.testing.assert_close(again(images), graph(images), rtol=0, atol=0)


def test_probes_that_may_fail_print_nothing(capfd):
    network = torch.fx.symbolic_trace(Fixed())
    assert trace(network, torch.zeros(1, 4, 3)).size_locked
    assert capfd.readouterr().err == ""


class Auxiliary(nn.Module):
    def __init__(self, auxiliary: bool) -> None:
        super().__init__()
        self.body, self.head, self.auxiliary = nn.Linear(3, 4), nn.Linear(4, 2), auxiliary

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.dropout(self.body(x), 0.5, self.training)
        return self.head(x) + x.mean() if self.training and self.auxiliary else self.head(x)


@pytest.mark.parametrize("auxiliary", [True, False])
def test_a_branch_on_the_mode_is_noted(auxiliary):
    notes = trace(Auxiliary(auxiliary), torch.zeros(1, 3)).notes
    assert [note.partition(";")[0] for note in notes] == auxiliary * ["forward takes another path in train mode"]


def test_for_inference_the_weights_are_shared_and_stay_as_they_are():
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).train()
    network(torch.randn(8, 4)).sum().backward()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    traced = trace(network, torch.randn(2, 4), inference=True)
    weight = traced.graph.get_submodule("0").get_parameter("weight")
    assert weight.data_ptr() == network[0].weight.data_ptr() and weight is not network[0].weight
    assert network[0].weight.grad is not None and network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_for_inference_pruning_masks_are_burnt_into_the_copy_alone():
    network = nn.Sequential(nn.Linear(4, 4))
    prune.random_unstructured(network[0], "weight", 0.5)
    kept = network[0].weight_orig.detach().clone()
    traced = trace(network, torch.randn(1, 4), inference=True)
    burnt = traced.graph.get_submodule("0").get_parameter("weight")
    assert (burnt == 0).sum() == 8 and torch.equal(network[0].weight_orig, kept)


def test_for_inference_a_model_that_fails_on_its_example_says_so():
    with pytest.raises(UnsupportedLayer, match="does not run on the example"):
        trace(nn.Linear(4, 4), torch.zeros(1, 5), inference=True)


def test_for_inference_a_model_of_one_batch_size_is_taken_at_that_size():
    traced = trace(
        nn.Sequential(nn.Flatten(), nn.Unflatten(0, (1, 2)), nn.Flatten(0, 1)), torch.zeros(2, 4), inference=True
    )
    assert traced.probe[0].shape == (2, 4) and traced.notes


@pytest.mark.parametrize("name", sorted(ZOO))
def test_for_inference_shapes_are_those_of_a_full_run(name):
    network, example = build(name, 1)
    hasty, full = (trace(network, example, inference=hasty).graph.graph.nodes for hasty in (True, False))
    assert [(node.name, node.meta["shape"], node.meta["dtype"]) for node in hasty] == [
        (node.name, node.meta["shape"], node.meta["dtype"]) for node in full
    ]


@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    padding=st.one_of(st.integers(0, 3), st.just("valid")),
    mode=st.sampled_from(["zeros", "circular"]),
)
def test_for_inference_the_size_of_a_convolution_is_the_real_one(kernel, stride, dilation, padding, mode):
    layer = nn.Conv2d(2, 3, kernel, stride, padding, dilation, padding_mode=mode)
    x = torch.zeros(2, 2, 9, 11)
    traced = trace(layer, x, inference=True)
    (node,) = (node for node in traced.graph.graph.nodes if node.op == "output")
    assert node.args[0].meta["shape"][1:] == layer(x).shape[1:]


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (1, 2, 2, 2), (3, 8, 8)])
def test_for_inference_a_convolution_that_cannot_take_its_input_says_so(shape):
    with pytest.raises(UnsupportedLayer, match="does not run on the example"):
        trace(nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(1)), torch.zeros(*shape), inference=True)


def test_for_inference_the_weight_counts_not_what_the_layer_says():
    layer = nn.Sequential(nn.Linear(4, 3), nn.Conv2d(2, 3, 3))
    layer[0].weight = nn.Parameter(torch.ones(7, 5))
    layer[0].bias = nn.Parameter(torch.zeros(7))
    layer[1].weight = nn.Parameter(torch.ones(6, 4, 1, 3))
    layer[1].bias = None
    for module, x in ((layer[0], torch.zeros(1, 5)), (layer[1], torch.zeros(1, 4, 8, 8))):
        (node,) = (n for n in trace(module, x, inference=True).graph.graph.nodes if n.op == "output")
        assert node.args[0].meta["shape"][1:] == module(x).shape[1:]


@pytest.mark.parametrize("other", [torch.float64, torch.device("meta")])
def test_for_inference_a_layer_of_another_kind_than_its_input_says_so(other):
    with pytest.raises(UnsupportedLayer, match="does not run on the example"):
        trace(nn.Sequential(nn.Linear(4, 2)).to(other), torch.zeros(1, 4), inference=True)


def test_for_inference_steps_that_want_numbers_get_them():
    class Inverse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = torch.linalg.inv(self.layer(x).reshape(-1, 2, 2))
            y += 1
            return nn.functional.dropout(y, 0.5, self.training)

    traced = trace(Inverse(), torch.randn(1, 4), inference=True)
    assert traced.graph(torch.randn(2, 4)).shape == (2, 2, 2)
