"""Arguments of forward, taken apart and resized."""

import pytest
import torch

from spokeshave.errors import InvalidArgument
from spokeshave.structures.example_inputs import as_inputs, batch_of, map_tensors, share_batch, with_batch


def test_inputs_are_taken_apart_and_resized():
    x = torch.arange(6.0).reshape(2, 3)
    assert with_batch((x, 4, {"k": x}), 3)[0].tolist() == [[0, 1, 2], [3, 4, 5], [0, 1, 2]]  # type: ignore[union-attr]
    doubled = map_tensors(lambda tensor: 2 * tensor, {"a": [x, "b"]})
    assert isinstance(doubled, dict) and doubled["a"][0].equal(2 * x) and doubled["a"][1] == "b"
    assert as_inputs([x]) == (x,)
    with pytest.raises(InvalidArgument, match="expected a tensor"):
        as_inputs("nothing")


def test_the_batch_is_that_of_the_first_tensor():
    assert batch_of((4, {"k": torch.zeros(5, 2)}, torch.zeros(3))) == 5
    assert batch_of((torch.tensor(1.0),)) == batch_of((torch.zeros(0, 2),)) == 1
    assert share_batch((torch.zeros(2, 3), [torch.zeros(2)], "x"))
    assert not share_batch((torch.zeros(2), torch.zeros(3))) and not share_batch((torch.tensor(1.0),))
