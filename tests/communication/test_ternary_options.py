"""Which gradients become ternary, against lists written by hand."""

import json
import math

import pytest
from torch import nn

from spokeshave.communication.ternary_options import TernaryOptions, compressed_parameters, gradient_size
from spokeshave.communication.wire_bytes import GradientSize
from spokeshave.errors import InvalidArgument
from spokeshave.models import LeNet


def _chosen(model: nn.Module, **options: object) -> list[str]:
    found = compressed_parameters(model, TernaryOptions(**options))  # pyright: ignore[reportArgumentType]
    assert list(found) == [name for name, _ in model.named_parameters()]
    return [name for name, compressed in found.items() if compressed]


def test_small_ones_are_left_out():
    model = LeNet()  # conv1 has 500 weights, conv2 25,000, ip1 400,000, ip2 5,000; ip1's bias 500
    assert _chosen(model) == ["conv2.weight", "ip1.weight", "ip2.weight"]
    assert _chosen(model, min_numel=500) == ["conv1.weight", "conv2.weight", "ip1.weight", "ip1.bias", "ip2.weight"]
    assert _chosen(model, min_numel=501) == ["conv2.weight", "ip1.weight", "ip2.weight"]
    assert len(_chosen(model, min_numel=0)) == 8


def test_names_of_parameters_and_modules_are_skipped():
    assert _chosen(LeNet(), skip=("ip1.weight", "conv2"), min_numel=1) == [
        "conv1.weight", "conv1.bias", "ip1.bias", "ip2.weight", "ip2.bias"
    ]  # fmt: skip


def test_a_name_is_no_prefix_of_a_longer_one():
    model = nn.Sequential()
    for index in (1, 10):
        model.add_module(f"fc{index}", nn.Linear(2, 2))
    assert _chosen(model, skip=("fc1",), min_numel=1) == ["fc10.weight", "fc10.bias"]


def test_the_last_layer_is_the_last_module_with_a_weight():
    assert _chosen(LeNet(), skip_last_layer=True, min_numel=1)[-1] == "ip1.bias"
    closed = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    assert _chosen(closed, skip_last_layer=True, min_numel=1) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert _chosen(nn.Linear(2, 2), skip_last_layer=True, min_numel=1) == []


def test_frozen_parameters_are_sorted_as_well_but_do_not_count():
    model = LeNet()
    model.ip1.requires_grad_(False)
    assert _chosen(model) == ["conv2.weight", "ip1.weight", "ip2.weight"]
    assert gradient_size(model, TernaryOptions()).layers == 2


def test_tied_and_parametrized_layers_are_skipped_by_every_name():
    tied = nn.ModuleDict({"embedding": nn.Embedding(20, 10), "middle": nn.Linear(10, 10), "head": nn.Linear(10, 20)})
    tied["head"].weight = tied["embedding"].weight
    middle = ["middle.weight", "middle.bias"]
    assert _chosen(tied, skip=("head",), min_numel=1) == middle
    assert _chosen(tied, skip=("head.weight",), min_numel=1) == [*middle, "head.bias"]
    assert _chosen(tied, skip_last_layer=True, min_numel=1) == middle
    model = nn.Sequential(nn.Linear(4, 4), nn.utils.parametrizations.weight_norm(nn.Linear(4, 2)))
    assert _chosen(model, skip_last_layer=True, min_numel=1) == ["0.weight", "0.bias"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"clip_factor": 0.0}, "clip_factor"),
        ({"clip_factor": math.inf}, "clip_factor"),
        ({"clip_factor": math.nan}, "clip_factor"),
        ({"skip": ("",)}, "skip"),
    ],
)
def test_what_is_out_of_range_is_refused(options: dict[str, object], words: str):
    with pytest.raises(InvalidArgument, match=words):
        TernaryOptions(**options)  # pyright: ignore[reportArgumentType]


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(InvalidArgument, match=r"called ip3; its modules are conv1, conv2, ip1, ip2"):
        compressed_parameters(LeNet(), TernaryOptions(skip=("ip3",)))
    with pytest.raises(InvalidArgument, match="skip_last_layer"):
        compressed_parameters(nn.ReLU(), TernaryOptions(skip_last_layer=True))


def test_the_size_of_a_gradient_counts_what_travels():
    model = LeNet()
    assert gradient_size(model, TernaryOptions(min_numel=1)) == GradientSize(431_080, 0, 8)
    assert gradient_size(model, TernaryOptions(skip=("ip1",))) == GradientSize(30_000, 401_080, 2)
    model.ip1.requires_grad_(False)
    assert gradient_size(model, TernaryOptions()) == GradientSize(30_000, 580, 2)


def test_options_as_json_values():
    options = TernaryOptions(skip=("ip1",)).to_dict()
    assert json.loads(json.dumps(options)) == options
    assert options["deviation"] == "about-zero" and options["clip_factor"] == 2.5 and options["skip"] == ["ip1"]
