"""Fixed features: standardized by hand, files that are none, and the real ones' counts."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from spokeshave.data.office_features import FeatureKind, Features, read_office_features, standardized
from spokeshave.errors import DataError


def save(root: Path, **arrays: np.ndarray) -> Path:
    folder = root / "features" / "surf"
    folder.mkdir(parents=True, exist_ok=True)
    savemat(folder / "dslr.mat", arrays)
    return root


def test_rows_and_labels_from_zero(tmp_path: Path) -> None:
    found = read_office_features(
        save(tmp_path, fts=np.array([[1, 3], [2, 2]], np.uint8), labels=np.array([[1], [10]])), FeatureKind.SURF, "dslr"
    )
    assert found.rows.tolist() == [[1.0, 3.0], [2.0, 2.0]] and found.labels.tolist() == [0, 9]


def test_standardized_by_numpy() -> None:
    rows = torch.rand(9, 4) * 10
    shares = rows.numpy() / rows.numpy().sum(1, keepdims=True)
    for histogram, values in ((True, shares), (False, rows.numpy())):
        expected = (values - values.mean(0)) / values.std(0)
        found = standardized(Features(rows, torch.zeros(9, dtype=torch.int64)), histogram).rows.numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_even_columns_and_empty_rows_stay_finite() -> None:
    rows = torch.tensor([[0.0, 0.0], [0.0, 5.0], [0.0, 5.0]])
    assert bool(torch.isfinite(standardized(Features(rows, torch.zeros(3, dtype=torch.int64)), True).rows).all())


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"fts": np.ones((2, 3))}, "holds no arrays fts and labels"),
        ({"fts": np.ones((2, 3)), "labels": np.array([1, 2, 3])}, "as many labels"),
        ({"fts": np.ones((2, 3)), "labels": np.array([0, 1])}, r"expected labels 1\.\.10, got 0\.\.1"),
        ({"fts": np.full((2, 3), np.nan), "labels": np.array([1, 2])}, "finite rows"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_office_features(save(tmp_path, **arrays), FeatureKind.SURF, "dslr")


def test_missing_and_damaged_files_are_refused(tmp_path: Path) -> None:
    root = save(tmp_path, fts=np.ones((2, 3)), labels=np.array([1, 2]))
    with pytest.raises(DataError, match=r"amazon\.mat is missing; surf features are here for: dslr"):
        read_office_features(root, FeatureKind.SURF, "amazon")
    path = root / "features" / "surf" / "dslr.mat"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"dslr\.mat holds no arrays"):
        read_office_features(root, FeatureKind.SURF, "dslr")


def test_real_features_belong_to_the_images(real_data_dir: Path) -> None:
    folder = real_data_dir / "office-caltech10"
    counts = {"amazon": 958, "caltech10": 1123, "dslr": 157, "webcam": 295}
    for domain, count in counts.items():
        found = read_office_features(folder, FeatureKind.SURF, domain)
        assert found.rows.shape == (count, 800) and found.labels.unique().tolist() == list(range(10))
    assert read_office_features(folder, FeatureKind.GOOGLENET, "dslr").rows.shape == (157, 1024)
    with pytest.raises(DataError, match="here for: amazon, dslr, webcam"):
        read_office_features(folder, FeatureKind.GOOGLENET, "caltech10")
