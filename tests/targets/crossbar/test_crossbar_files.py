import hashlib
import io
import json

import numpy as np
import pytest
import torch
from torch import nn

from network_zoo import build
from spokeshave.errors import DataError, FileError
from spokeshave.models.lenet import LeNet
from spokeshave.targets.crossbar.converters import Converters, Readout
from spokeshave.targets.crossbar.crossbar_files import ARRAYS_FILE, JSON_FILE, read_crossbars
from spokeshave.targets.crossbar.mapped_network import MappedNetwork, load_crossbars
from spokeshave.targets.crossbar.memristor import Memristor
from spokeshave.targets.crossbar.weights_to_tiles import Crossbar

CHIP = Crossbar(size=(16, 12), device=Memristor.n_level(7, 20.0, variation=0.1, stuck_off=0.01, read_noise=0.02))


def exported(tmp_path, chip: Crossbar = CHIP) -> tuple[nn.Module, MappedNetwork]:
    net, example = build("resnet", 4)
    mapped = chip.map(net.eval(), example)
    mapped.export(tmp_path)
    return net, mapped


@pytest.mark.parametrize(
    "chip",
    [CHIP, Crossbar((9, 9), converters=Converters(6, 6, readout=Readout.EACH), wire_resistance_ohm=2.0)],
    ids=["noise", "converters"],
)
def test_round_trip_gives_the_same_outputs(tmp_path, chip):
    net, mapped = exported(tmp_path, chip)
    again = load_crossbars(tmp_path, net)
    x = build("resnet", 4)[1]
    with torch.no_grad():
        assert torch.equal(again(x), mapped(x))
    assert again.report == mapped.report and again.cost() == mapped.cost()
    assert (again.size, again.tiling) == (mapped.size, mapped.tiling)


def test_types_and_a_model_that_is_one_layer_survive(tmp_path):
    net = nn.Linear(5, 3).bfloat16()
    mapped = Crossbar(size=(4, 4)).map(net)
    mapped.export(tmp_path)
    again = load_crossbars(tmp_path, net)
    assert again.layers[""].g_plus.dtype == torch.bfloat16
    x = torch.randn(2, 5).bfloat16()
    torch.testing.assert_close(again(x), mapped(x))


def other_tool(folder, images: np.ndarray) -> np.ndarray:
    """LeNet from the files alone, by numpy alone: what another program would do."""
    layers = {entry["name"]: entry for entry in json.loads((folder / JSON_FILE).read_text())["layers"]}
    arrays = np.load(folder / ARRAYS_FILE)

    def multiply(name: str, inputs: np.ndarray) -> np.ndarray:
        entry, grid = layers[name], layers[name]["grid"]
        (g,) = arrays[f"{name}.g_plus"] - arrays[f"{name}.g_minus"]  # rows, columns, tile inputs, tile outputs
        matrix = g.transpose(0, 2, 1, 3).reshape(grid["rows"] * grid["tile_inputs"], -1)
        matrix = matrix[: grid["inputs"], : grid["outputs"]] * entry["weight_per_siemens"]
        return inputs @ matrix + arrays[f"{name}.bias"]

    def convolve(name: str, x: np.ndarray) -> np.ndarray:
        windows = np.lib.stride_tricks.sliding_window_view(x, layers[name]["product"]["weight_shape"][2:], (2, 3))
        patches = windows.transpose(0, 2, 3, 1, 4, 5)  # images, rows, columns, taps
        return multiply(name, patches.reshape(*patches.shape[:3], -1)).transpose(0, 3, 1, 2)

    def pool(x: np.ndarray) -> np.ndarray:
        return x.reshape(*x.shape[:2], x.shape[2] // 2, 2, x.shape[3] // 2, 2).max((3, 5))

    x = pool(convolve("conv2", pool(convolve("conv1", images)))).reshape(len(images), -1)
    return multiply("ip2", np.maximum(multiply("ip1", x), 0))


def test_another_tool_computes_lenet_from_the_files(tmp_path):
    torch.manual_seed(0)
    net, images = LeNet().double(), torch.randn(3, 1, 28, 28).double()
    mapped = Crossbar(device=Memristor.one_level(10.0, variation=0.1)).map(net)
    mapped.export(tmp_path)
    torch.testing.assert_close(torch.from_numpy(other_tool(tmp_path, images.numpy())), mapped(images).detach())


def rewrite(folder, change_arrays=None, change_json=None, keep_sum=True) -> None:
    described = json.loads((folder / JSON_FILE).read_text())
    content = (folder / ARRAYS_FILE).read_bytes()
    if change_arrays:
        arrays = dict(np.load(io.BytesIO(content)))
        change_arrays(arrays)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        content = buffer.getvalue()
    if change_json:
        change_json(described)
    if keep_sum:
        described["arrays_sha256"] = hashlib.sha256(content).hexdigest()
    (folder / ARRAYS_FILE).write_bytes(content)
    (folder / JSON_FILE).write_text(json.dumps(described))


def put(key, value):
    return lambda arrays: arrays.update({key: value(arrays[key])})


@pytest.mark.parametrize(
    ("change_arrays", "change_json", "words"),
    [
        (put("fc.g_plus", lambda a: np.where(a == a.max(), np.nan, a)), None, "finite"),
        (put("fc.g_minus", lambda a: -1 - a), None, "finite"),
        (put("fc.g_plus", lambda a: a[..., :-1]), None, "shape"),
        (put("fc.bias", lambda a: a[:-1]), None, "shape"),
        (put("fc.bias", lambda a: a.astype("U3")), None, "expected numbers"),
        (put("fc.bias", lambda a: a.astype(object)), None, "missing or damaged"),
        (lambda arrays: arrays.pop("fc.used"), None, "missing or damaged"),
        (None, lambda d: d.update(version=2), "version"),
        (None, lambda d: d.update(format="other"), "format"),
        (None, lambda d: d.pop("layers"), "damaged"),
        (None, lambda d: d.update(size=[3]), "damaged"),
        (None, lambda d: d.update(tiling="spiral"), "damaged"),
        (None, lambda d: d["layers"][0].pop("grid"), "damaged"),
        (None, lambda d: d["layers"][0]["grid"].update(inputs=3), "grid"),
        (None, lambda d: d["layers"][0]["product"].update(groups=5), "groups"),
        (None, lambda d: d["layers"][0]["product"].update(surprise=5), "damaged"),
        (None, lambda d: d["layers"][0].update(weight_per_siemens=float("nan")), "finite"),
        (None, lambda d: d["layers"][0].update(wire_resistance_ohm=float("nan")), "finite"),
        (None, lambda d: d["layers"][0].update(wire_resistance_ohm=-1e9), "finite"),
        (None, lambda d: d.update(size=[0, 64]), "at least 1"),
        (None, lambda d: d["layers"][0].update(dtype="int8"), "damaged"),
        (None, lambda d: d["layers"][0]["device"].update(g_max_s=-1.0), "g_max_s"),
        (None, lambda d: d["report"].pop("layers"), "report"),
    ],
)
def test_what_does_not_belong_together_is_a_data_error(tmp_path, change_arrays, change_json, words):
    net, _ = exported(tmp_path)
    rewrite(tmp_path, change_arrays, change_json)
    with pytest.raises(DataError, match=words):
        load_crossbars(tmp_path, net)


def test_damaged_files_are_data_errors(tmp_path):
    net, _ = exported(tmp_path)
    whole = (tmp_path / ARRAYS_FILE).read_bytes()
    for keep in (0, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / ARRAYS_FILE).write_bytes(whole[:keep])
        for changed in (False, True):
            with pytest.raises(DataError, match=r"crossbars\.npz"):
                read_crossbars(tmp_path, changed)
    (tmp_path / ARRAYS_FILE).unlink()
    with pytest.raises(DataError, match="missing"):
        read_crossbars(tmp_path)
    (tmp_path / ARRAYS_FILE).write_bytes(whole)
    for text in ("", "[", "[1]", "\xff"):
        (tmp_path / JSON_FILE).write_text(text, encoding="latin1")
        with pytest.raises(DataError, match=r"crossbars\.json"):
            load_crossbars(tmp_path, net)


def test_conductances_measured_on_a_chip_are_taken_where_that_is_said(tmp_path):
    net, mapped = exported(tmp_path)
    rewrite(tmp_path, put("fc.g_plus", lambda a: a * 0.9), keep_sum=False)
    with pytest.raises(DataError, match="changed=True"):
        load_crossbars(tmp_path, net)
    measured = load_crossbars(tmp_path, net, changed=True)
    torch.testing.assert_close(measured.layers["fc"].g_plus.detach(), mapped.layers["fc"].g_plus.detach() * 0.9)


def test_another_architecture_is_refused(tmp_path):
    exported(tmp_path)
    with pytest.raises(DataError, match="same architecture"):
        load_crossbars(tmp_path, build("lenet", 0)[0])


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    _, mapped = exported(tmp_path)
    with pytest.raises(FileError, match=r"crossbars\.npz"):
        mapped.export(tmp_path / JSON_FILE / "below")
