"""The authors' AlexNet weights: SciPy's reading is the oracle, tampering is refused, the published rates are met."""

import hashlib
import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch

from spokeshave.data.skimcaffe import PublishedWeights, load_alexnet_convolutions, read_csr
from spokeshave.errors import DataError


def lowered() -> np.ndarray:
    rng = np.random.default_rng(1)
    return (rng.normal(size=(6, 2 * 3 * 3)) * (rng.random((6, 18)) < 0.3)).astype(np.float32)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A data folder with one small grouped layer."""
    folder = tmp_path / "skimcaffe-alexnet" / "ssl_0.54214"
    folder.mkdir(parents=True)
    scipy.sparse.save_npz(folder / "conv2.npz", scipy.sparse.csr_matrix(lowered()))
    entry = {"in_channels": 4, "out_channels": 6, "kernel": 3, "stride": 1, "padding": 1, "groups": 2, "input": 9}
    entry["sha256"] = hashlib.sha256((folder / "conv2.npz").read_bytes()).hexdigest()  # type: ignore[assignment]
    (folder / "layers.json").write_text(json.dumps({"conv2": entry}))
    return tmp_path


def test_a_layer_is_its_lowered_matrix_in_kernel_order(weights: Path) -> None:
    layer = load_alexnet_convolutions(weights)["conv2"]
    assert np.array_equal(layer.weight.numpy(), lowered().reshape(6, 2, 3, 3))
    assert (layer.geometry.groups, layer.geometry.input_pixels) == (2, 9)


def test_a_tampered_file_is_refused(weights: Path) -> None:
    path = weights / "skimcaffe-alexnet" / "ssl_0.54214" / "conv2.npz"
    content = bytearray(path.read_bytes())
    content[50] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"conv2\.npz .*expected sha256 \w+, got \w+"):
        load_alexnet_convolutions(weights)


def test_a_missing_file_is_named(weights: Path) -> None:
    (weights / "skimcaffe-alexnet" / "ssl_0.54214" / "conv2.npz").unlink()
    with pytest.raises(DataError, match=r"conv2\.npz cannot be read"):
        load_alexnet_convolutions(weights)


def test_geometry_that_does_not_fit_is_refused(weights: Path) -> None:
    path = weights / "skimcaffe-alexnet" / "ssl_0.54214" / "layers.json"
    path.write_text(path.read_text().replace('"kernel": 3', '"kernel": 5'))
    with pytest.raises(DataError, match=r"\(6, 2, 5, 5\) cannot have a lowered matrix \(6, 18\)"):
        load_alexnet_convolutions(weights)


@pytest.mark.parametrize("text", ["{", "[1]", '{"conv2": {"sha256": "x"}}', '{"conv2": 3}'])
def test_a_damaged_table_is_refused(weights: Path, text: str) -> None:
    (weights / "skimcaffe-alexnet" / "ssl_0.54214" / "layers.json").write_text(text)
    with pytest.raises(DataError, match=r"layers\.json"):
        load_alexnet_convolutions(weights)


@pytest.mark.usefixtures("no_other_data")
def test_not_found_says_where_it_must_lie(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"skimcaffe-alexnet/l1_0\.56256/layers\.json is not in .*--data-dir"):
        load_alexnet_convolutions(tmp_path, PublishedWeights.L1)
    with pytest.raises(DataError, match=r"ssl_0\.54214, l1_0\.56256, got 'l2'"):
        load_alexnet_convolutions(tmp_path, "l2")


def archive(**arrays: np.ndarray) -> bytes:
    out = BytesIO()
    np.savez(out, **arrays)  # type: ignore[arg-type]
    return out.getvalue()


def test_arrays_that_are_no_matrix_are_refused() -> None:
    good = {
        "data": np.ones(2, np.float32),
        "indices": np.array([0, 2]),
        "indptr": np.array([0, 1, 2]),
        "shape": np.array([2, 3]),
    }
    assert read_csr(Path("x"), archive(**good)).tolist() == [[1, 0, 0], [0, 0, 1]]
    for key, wrong in (
        ("indices", np.array([0, 3])),
        ("indices", np.array([0, -1])),
        ("indptr", np.array([0, 2, 1])),
        ("indptr", np.array([0, 2])),
        ("data", np.array([1.0, np.nan], np.float32)),
    ):
        with pytest.raises(DataError, match="do not describe a finite 2x3 matrix"):
            read_csr(Path("x"), archive(**(good | {key: wrong})))


def test_a_pickle_inside_the_archive_is_refused() -> None:
    with pytest.raises(DataError, match="is not a CSR matrix"):
        read_csr(Path("x"), archive(data=np.array([{}], dtype=object)))


def test_the_published_weights_have_the_papers_sparsity(real_data_dir: Path) -> None:
    """Wen et al. 2016, Table 4 #2: all zero columns, counted within each group, and the zero rows but for two.

    Rows of conv2 and conv4 are 12.9 % and 46.9 % there; these weights are those before fine-tuning: 12.1 % and 46.1 %.
    """
    layers = load_alexnet_convolutions(real_data_dir)
    assert list(layers) == ["conv1", "conv2", "conv3", "conv4", "conv5"]
    assert layers["conv2"].weight.shape == (256, 48, 5, 5)
    columns = {}
    for name, layer in layers.items():
        groups = layer.weight.flatten(1).view(layer.geometry.groups, -1, layer.weight[0].numel())
        columns[name] = float((groups == 0).all(1).double().mean())
    rows = {n: float((layer.weight.flatten(1) == 0).all(1).double().mean()) for n, layer in layers.items()}
    assert [round(100 * columns[f"conv{i}"], 1) for i in range(1, 6)] == [0.0, 63.2, 76.9, 84.7, 80.7]
    assert [round(100 * rows[f"conv{i}"], 1) for i in (1, 3, 5)] == [9.4, 40.6, 0.0]
    assert round(100 * rows["conv2"], 1) == 12.1
    assert round(100 * rows["conv4"], 1) == 46.1
    assert all(torch.isfinite(layer.weight).all() for layer in layers.values())
