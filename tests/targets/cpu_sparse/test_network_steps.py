"""The kinds of work as values."""

import dataclasses

import numpy as np
import pytest

from spokeshave.targets.cpu_sparse.network_steps import Multiply, NetworkStep
from spokeshave.targets.cpu_sparse.stored_weight import StoredWeight


def test_steps_that_hold_arrays_are_told_apart_by_identity_and_stay_as_they_are():
    weight = StoredWeight.of(np.eye(2, dtype=np.float32))
    one, other = (Multiply("fc", ("x",), "y", weight, np.zeros(2, np.float32)) for _ in range(2))
    assert one != other and len({one, other}) == 2 and isinstance(one, NetworkStep)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.rectify = True  # type: ignore[misc]
    assert dataclasses.replace(one, rectify=True).rectify and not one.rectify
