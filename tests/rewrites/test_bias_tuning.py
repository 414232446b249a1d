"""Bias tuning: the closed form against the paper's sum, means that agree, weights that stay, normalizations."""

import copy

import pytest
import torch
from rich.console import Console
from torch import nn

from spokeshave.errors import InvalidArgument, NothingChanged, TrainingDiverged
from spokeshave.rewrites import one_level, tune_biases
from spokeshave.rewrites.bias_tuning import biased_layers, only_biases


def data(count: int = 3) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.rand(20 + i, 1, 8, 8, generator=generator), torch.randint(5, (20 + i,), generator=generator))
        for i in range(count)
    ]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))


def test_the_first_layers_shift_is_the_papers_sum():
    """db_j = -E[sum_i dW_ji x_i]: unfolded patches, weight changes, a plain mean."""
    net = network()
    new, _ = one_level(net, data()[0][0])
    tuned, _ = tune_biases(new, data(), reference=net)
    patches = torch.cat([nn.functional.unfold(x, 3).transpose(1, 2).reshape(-1, 9) for x, _ in data()]).double()
    change = (new[0].weight - net[0].weight).detach().double().flatten(1)
    wanted = net[0].bias.double() - (patches @ change.T).mean(0)
    assert torch.allclose(tuned[0].bias.double(), wanted, atol=1e-6)


def test_afterwards_every_neurons_mean_is_the_references():
    net = network()
    new, _ = one_level(net, data()[0][0])
    tuned, report = tune_biases(new, data(), reference=net)
    everything = torch.cat([x for x, _ in data()])
    for depth, axes in ((1, (0, 2, 3)), (4, (0,))):
        means = [module[:depth](everything).mean(axes) for module in (net, tuned, new)]
        assert torch.allclose(means[0], means[1], atol=1e-5) and not torch.allclose(means[0], means[2], atol=1e-3)
    assert [layer.name for layer in report.layers] == ["0", "3"] and report.untouched == ()
    assert all(torch.equal(tuned.get_parameter(f"{n}.weight"), new.get_parameter(f"{n}.weight")) for n in ("0", "3"))


def test_training_changes_biases_only_and_lowers_the_loss():
    net = network()
    state = copy.deepcopy(net.state_dict())
    tuned, report = tune_biases(net, data(), epochs=10, learning_rate=0.05)
    assert report.loss_after < report.loss_before - 0.01
    assert all(torch.equal(tuned.get_parameter(f"{n}.weight"), net.get_parameter(f"{n}.weight")) for n in ("0", "3"))
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in tuned.parameters()) and tuned.training
    console = Console(record=True)
    console.print(report.table())
    assert "biases tuned" in console.export_text() and len(report.to_dict()["layers"]) == 2


def test_the_best_bias_of_a_linear_classifier_is_found():
    """With weights of zero the best biases are the logarithms of the classes' shares."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    nn.init.zeros_(net[1].weight)
    tuned, _ = tune_biases(net, data(), epochs=300, learning_rate=0.05)
    labels = torch.cat([y for _, y in data()])
    shares = torch.bincount(labels, minlength=5) / len(labels)
    assert torch.allclose(tuned[1].bias.softmax(0), shares, atol=0.01)


def test_where_a_layer_has_no_bias_the_normalizations_is_tuned():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5, bias=False))
    net(data()[0][0])  # statistics
    net[1].weight.data.uniform_(0.5, 2.0)
    names, untouched = biased_layers(copy.deepcopy(net).eval(), data()[0][0])
    assert names == ["1"] and untouched == ("3",)
    new, _ = one_level(net, data()[0][0])
    tuned, report = tune_biases(new, data(), reference=net)
    means = [copy.deepcopy(n)[:2].eval()(torch.cat([x for x, _ in data()])).mean((0, 2, 3)) for n in (net, tuned)]
    assert torch.allclose(*means, atol=1e-5) and report.untouched == ("3",)
    assert torch.equal(tuned[1].running_mean, net[1].running_mean)


def test_only_biases_are_left_to_train():
    net = network()
    only_biases(net, ["0", "3"])
    assert [name for name, p in net.named_parameters() if p.requires_grad] == ["0.bias", "3.bias"]


def test_parts_keep_the_mode_that_they_had():
    net = network().train()
    net[0].eval()
    tuned, _ = tune_biases(net, data(), epochs=1)
    assert tuned.training and not tuned[0].training and tuned[3].training


def test_what_is_wrong_is_refused():
    net = network()
    for options in ({}, {"epochs": -1}, {"epochs": 1, "learning_rate": 0.0}):
        with pytest.raises(InvalidArgument):
            tune_biases(net, data(), **options)
    with pytest.raises(InvalidArgument, match="only once"):
        tune_biases(net, iter(data()), epochs=1)
    with pytest.raises(InvalidArgument, match="no batches"):
        tune_biases(net, [], epochs=1)
    with pytest.raises(NothingChanged, match="nothing to tune"):
        tune_biases(nn.Sequential(nn.Flatten(), nn.Linear(64, 5, bias=False)), data(), epochs=1)
    with pytest.raises(InvalidArgument, match="no layer called 3"):
        tune_biases(net, data(), reference=nn.Sequential(nn.Flatten()))
    wider = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 5))
    with pytest.raises(InvalidArgument, match="0: 4 outputs, but 6"):
        tune_biases(net, data(), reference=wider)


def test_a_reference_needs_no_labels():
    net = network()
    new, _ = one_level(net, data()[0][0])
    bare = [(x, None) for x, _ in data()]
    tuned, report = tune_biases(new, bare, reference=net)
    wanted, _ = tune_biases(new, data(), reference=net)
    assert all(torch.equal(a, b) for a, b in zip(tuned.parameters(), wanted.parameters(), strict=True))
    assert report.loss_before is None is report.loss_after and report.table().title == "biases tuned"
    with pytest.raises(InvalidArgument, match="epochs need labels"):
        tune_biases(new, bare, epochs=1)


def test_numbers_that_are_not_finite_are_no_biases():
    net, broken = network(), network()
    broken[3].weight.data[0, 0] = torch.nan
    with pytest.raises(TrainingDiverged, match="3: its mean outputs"):
        tune_biases(net, data(), reference=broken)
    with pytest.raises(TrainingDiverged, match="loss on the data is nan"):
        tune_biases(broken, data(), reference=net)


class Idle(nn.Sequential):
    def forward(self, input):
        return self[0](input)


def test_a_reference_that_does_not_run_a_layer_is_refused():
    with pytest.raises(InvalidArgument, match="does not run on the data: 3"):
        tune_biases(network(), data(), reference=Idle(*network()))


def test_biases_are_trained_also_where_gradients_are_off():
    with torch.no_grad():
        tuned, _ = tune_biases(network(), data(), epochs=1)
    wanted, _ = tune_biases(network(), data(), epochs=1)
    assert all(torch.equal(a, b) for a, b in zip(tuned.parameters(), wanted.parameters(), strict=True))
