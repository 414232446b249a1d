"""The digest over tensors."""

import hashlib

import numpy as np
import torch

from spokeshave.tensor_digest import digest


def test_it_is_a_sha256_over_names_types_shapes_and_bytes():
    wanted = hashlib.sha256(b"a torch.float32 (2,)\n" + torch.tensor([1.0, 2.0]).numpy().tobytes()).hexdigest()
    assert digest({"a": torch.tensor([1.0, 2.0])}) == wanted


def test_every_part_counts_and_the_order_does_not():
    one, two = torch.arange(6.0), torch.zeros(2)
    base = digest({"a": one, "b": two})
    assert base == digest({"b": two, "a": one})
    others = [{"a": one}, {"a": one, "c": two}, {"a": one.view(2, 3), "b": two}, {"a": one.int(), "b": two}]
    assert len({base, *map(digest, others)}) == 5


def test_an_empty_tensor_counts_by_its_type_and_shape():
    empty = torch.from_numpy(np.array([0.0], np.float32)[np.zeros(0, int)])
    assert digest({"a": empty}) == hashlib.sha256(b"a torch.float32 (0,)\n").hexdigest()
    strided = torch.from_numpy(np.diff(np.zeros(0, np.int64), prepend=0).astype(np.int16)[:0])
    assert digest({"a": strided}) == hashlib.sha256(b"a torch.int16 (0,)\n").hexdigest()
