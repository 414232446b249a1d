import copy

import pytest
import torch
from torch import nn

from network_zoo import build
from spokeshave.errors import DataError, InvalidArgument
from spokeshave.targets.crossbar.converters import Converters
from spokeshave.targets.crossbar.mapped_network import ChannelsLastMaxPool2d, load_crossbars, with_layers
from spokeshave.targets.crossbar.memristor import Memristor
from spokeshave.targets.crossbar.weights_to_tiles import Crossbar


def test_calibration_takes_the_largest_magnitudes_of_the_example():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
    x = torch.randn(20, 8)
    mapped = Crossbar(size=(4, 4), converters=Converters(None, 8)).map(net, x)
    assert float(mapped.layers["0"].input_range) == float(x.abs().max())
    weight = net[0].weight.detach().T
    first = x[:, :4] @ weight[:4], x[:, 4:] @ weight[4:]
    assert float(mapped.layers["0"].tile_range) == pytest.approx(max(float(part.abs().max()) for part in first))
    mapped.calibrate(2 * x)
    assert float(mapped.layers["0"].input_range) == 2 * float(x.abs().max())
    with pytest.raises(InvalidArgument, match="example"):
        mapped.calibrate(torch.randn(2, 9))


def test_a_module_used_twice_is_replaced_in_both_places():
    shared = nn.Linear(4, 4)
    net = nn.Sequential(shared, nn.ReLU(), shared)
    mapped = Crossbar(size=(3, 3)).map(net)
    assert mapped.network[0] is mapped.network[2] and len(mapped.layers) == 1
    x = torch.randn(3, 4)
    torch.testing.assert_close(mapped(x), net(x))


def test_torchs_fused_transformer_layer_does_not_pass_the_crossbars_by():
    torch.manual_seed(1)
    net = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2).eval()
    x = torch.randn(3, 5, 8)
    noisy = Crossbar(size=(6, 6), device=Memristor(read_noise=0.1)).map(net)
    exact = Crossbar(size=(6, 6)).map(net)
    with torch.no_grad():
        torch.testing.assert_close(exact(x), net(x), atol=1e-5, rtol=1e-5)
        assert not torch.equal(noisy(x), noisy(x))
    notes = exact.report.notes()
    assert "layers.0.self_attn (MultiheadAttention) stays digital" in notes
    assert "out_proj" not in notes and set(exact.layers) == {f"layers.{i}.linear{j}" for i in (0, 1) for j in (1, 2)}


def test_pooling_is_the_same():
    pool = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
    fast = ChannelsLastMaxPool2d.of(pool)
    for shape in ((2, 3, 7, 8), (3, 7, 8)):
        x = torch.randn(shape, requires_grad=True)
        assert torch.equal(fast(x), pool(x)) and fast(x).is_contiguous()
        torch.testing.assert_close(*(torch.autograd.grad(p(x).square().sum(), x)[0] for p in (fast, pool)))
    assert type(pool) is nn.MaxPool2d


def test_it_is_an_ordinary_module():
    net, example = build("resnet", 2)
    x = torch.randn(2, *example.shape[1:])
    mapped = Crossbar(size=(16, 16), converters=Converters(8, 8)).map(net, x)
    other = Crossbar(size=(16, 16), converters=Converters(8, 8), device=Memristor(variation=0.3)).map(net, 3 * x)
    copied = copy.deepcopy(mapped)
    with torch.no_grad():
        assert torch.equal(copied(x), mapped(x))
        assert not torch.equal(other(x), mapped(x))
        other.load_state_dict(mapped.state_dict())
        assert torch.equal(other(x), mapped(x))
        torch.testing.assert_close(mapped.double()(x.double()).float(), copied(x), atol=0.05, rtol=0.05)
    assert mapped.training == net.training and mapped.eval().network.training is False


def test_only_the_named_places_change():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    made = with_layers(net, {"1": nn.Identity()})
    assert isinstance(made[1], nn.Identity) and isinstance(net[1], nn.Linear)
    assert made[0] is not net[0] and torch.equal(made[0].weight, net[0].weight)


def test_the_report_says_everything():
    report = Crossbar(size=(16, 16)).map(build("resnet", 0)[0]).report
    assert report.crossbars == sum(layer.crossbars for layer in report.layers) == report.to_dict()["crossbars"]
    assert report.table().row_count == len(report.layers)
    assert {layer.kind for layer in report.digital} == {"BatchNorm2d"}


def test_parts_keep_the_mode_that_they_had(tmp_path):
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).train()
    net[1].eval()
    net[2].eval()
    mapped = Crossbar().map(net)
    for made in (mapped, load_crossbars(mapped.export(tmp_path), net)):
        assert [part.training for part in (made, *made.network)] == [True, True, False, False]


class Skipping(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.unused(x) if len(x) == 1 else self.used(x)


def test_a_calibration_that_fails_leaves_the_ranges():
    x = torch.randn(5, 4)
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    mapped = Crossbar(converters=Converters(8, 8)).map(net, x)
    before = {name: buffer.clone() for name, buffer in mapped.named_buffers()}
    for example, words in ((torch.randn(5, 3), "fails"), (torch.full((5, 4), torch.nan), "in 0 it leads to numbers")):
        with pytest.raises(InvalidArgument, match=words):
            mapped.calibrate(example)
        assert all(torch.equal(buffer, before[name]) for name, buffer in mapped.named_buffers())
    with pytest.raises(InvalidArgument, match="does not reach unused"):
        Crossbar(converters=Converters(8)).map(Skipping(), x)
    Crossbar().map(Skipping(), x)  # nothing has a range


def test_crossbars_that_were_read_are_as_the_models_layers(tmp_path):
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    net[0].weight.requires_grad_(False)
    net[1].bias.requires_grad_(False)
    mapped = Crossbar().map(net)
    mapped.export(tmp_path)
    found = load_crossbars(tmp_path, net)
    names = [name for name, parameter in mapped.named_parameters() if parameter.requires_grad]
    assert [name for name, parameter in found.named_parameters() if parameter.requires_grad] == names
    assert len(names) == 3
    elsewhere = load_crossbars(tmp_path, copy.deepcopy(net).to("meta"))
    assert all(tensor.is_meta for tensor in (*elsewhere.parameters(), *elsewhere.buffers()))
    with pytest.raises(DataError, match="float64"):
        load_crossbars(tmp_path, net.double())
