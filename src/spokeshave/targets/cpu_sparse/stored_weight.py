"""Stored weight: positions and values of the nonzeros, which is all that a sparse network keeps of a weight."""

from collections.abc import Callable, Sequence
from weakref import ref

import numpy as np
import torch

from spokeshave.jit.code_cache import code_key
from spokeshave.targets.cpu_sparse.nonzero_finder import find_nonzeros


def places_kind(shape: Sequence[int]) -> type[np.unsignedinteger]:
    """Integer that holds any flat index of an array of that shape."""
    return np.uint32 if int(np.prod(shape)) <= 1 << 32 else np.uint64


class StoredWeight:
    """The nonzeros of an array.

    Args:
        shape: of the array.
        places: uint32 (uint64 beyond 2**32 elements), flat index of each nonzero, ascending.
        values: float32.

    Attributes:
        nonzeros: how many.

    Example:
        >>> StoredWeight.of(np.array([[0.0, 2.0]], np.float32)).places.tolist()
        [1]
    """

    def __init__(self, shape: tuple[int, ...], places: np.ndarray, values: np.ndarray) -> None:
        self.shape, self.nonzeros = shape, len(values)
        self._arrays: tuple[np.ndarray, np.ndarray] | None = (places, values)
        self._alive = tuple(map(ref, self._arrays))
        self._restore: Callable[[], StoredWeight] | None = None
        self._digest: str | None = None

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Places and values; once released, those that somebody still has, or new ones that are not kept."""
        arrays = self._arrays  # read once: another thread may release them meanwhile
        if arrays is not None:
            return arrays
        places, values = (found() for found in self._alive)
        if places is None or values is None:
            assert self._restore is not None
            places, values = self._restore().arrays()
            self._alive = ref(places), ref(values)
        return places, values

    @property
    def places(self) -> np.ndarray:
        """Flat index of each nonzero, ascending."""
        return self.arrays()[0]

    @property
    def values(self) -> np.ndarray:
        """Of the nonzeros: float32."""
        return self.arrays()[1]

    @property
    def bytes(self) -> int:
        """Of what is kept: 0 once it has been released."""
        return 0 if self._arrays is None else sum(part.nbytes for part in self._arrays)

    def release(self, restore: Callable[[], "StoredWeight"]) -> None:
        """Let go of the arrays, for a kernel's order of the same nonzeros is in memory already.

        Args:
            restore: makes them again from that, bit for bit.
        """
        if self._arrays is not None:
            _ = self.digest  # while it can be had at once
            self._restore = restore
            self._arrays = None

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        """A copy, or what another process receives, has arrays of its own."""
        return StoredWeight, (self.shape, *self.arrays())

    @classmethod
    def of(cls, dense: np.ndarray) -> "StoredWeight":
        """Keep what is not zero; NaN is not."""
        flat = np.ascontiguousarray(dense, np.float32).ravel()
        return cls(tuple(dense.shape), *find_nonzeros(flat, places_kind(flat.shape)))

    @property
    def digest(self) -> str:
        """SHA-256 of the whole."""
        if self._digest is None:  # not a cached property: Python 3.11 makes those wait for each other
            self._digest = code_key(self.shape, *self.arrays())
        return self._digest

    def __len__(self) -> int:
        return self.shape[0]

    def dense(self) -> np.ndarray:
        """The array: float32."""
        flat = np.zeros(int(np.prod(self.shape)), np.float32)
        places, values = self.arrays()
        flat[places] = values
        return flat.reshape(self.shape)

    def scaled(self, factors: np.ndarray) -> "StoredWeight":
        """The weight with a factor for each filter; nonzeros that become 0 are dropped.

        Args:
            factors: float64, [filters].
        """
        places, values = self.arrays()
        filters = places // max(1, int(np.prod(self.shape[1:])))
        values = (values * factors[filters]).astype(np.float32)
        kept = values != 0
        return StoredWeight(self.shape, places[kept], values[kept])

    def rounded(self) -> "StoredWeight":
        """The weight with every value rounded to bfloat16, the nearest; nonzeros that become 0 are dropped."""
        places, values = self.arrays()
        values = torch.from_numpy(values).bfloat16().float().numpy()
        kept = values != 0
        return StoredWeight(self.shape, places[kept], values[kept])

    @property
    def density(self) -> float:
        """Share of nonzeros, 0 to 1."""
        return self.nonzeros / max(1, int(np.prod(self.shape)))
