"""One task of the benchmark on rows that are easy to tell apart, and how accuracies are shown."""

from pathlib import Path

import numpy as np
import pytest
from adaptation_tables import percent
from fixed_features import WAYS, Options, mean_of, measure
from scipy.io import savemat

from spokeshave.data.office_features import FeatureKind


def test_every_way_is_right_where_classes_lie_apart(tmp_path: Path) -> None:
    folder = tmp_path / "features" / "GoogleNet1024"
    folder.mkdir(parents=True)
    drawn = np.random.default_rng(0)
    labels = np.arange(60) % 3
    centres = 5 * drawn.normal(size=(3, 8))
    for name, shift in (("amazon", 0.0), ("dslr", 0.5)):
        savemat(folder / f"{name}.mat", {"fts": centres[labels] + shift + drawn.normal(size=(60, 8)) / 5,
                                         "labels": labels + 1})  # fmt: skip
    job = (FeatureKind.GOOGLENET, "amazon", "dslr")
    found = measure((tmp_path, Options(seeds=(0, 1), steps=60)), job, lambda said: None)
    assert list(found) == list(WAYS) and [len(found[way]) for way in WAYS] == [1, 1, 1, 1, 2, 2]
    assert min(min(values) for values in found.values()) > 0.95


def test_means_are_over_tasks_of_means_over_seeds() -> None:
    found = {"a to b": {"SVM": [0.2, 0.4]}, "b to a": {"SVM": [0.9]}}
    assert mean_of(found, "SVM") == pytest.approx(0.6)
    assert percent([0.5]) == "50.0" and percent([0.5, 0.6]) == "55.0 ± 7.1"
