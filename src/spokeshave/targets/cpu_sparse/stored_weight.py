"""Stored weight: positions and values of the nonzeros, which is all that a sparse network keeps of a weight."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from spokeshave.jit.code_cache import code_key

CHUNK = 1 << 18
"""Elements searched at a time: what is made on the way then stays in the caches."""


@dataclass(frozen=True, eq=False)
class StoredWeight:
    """The nonzeros of an array.

    Attributes:
        shape: of the array.
        places: uint32 (uint64 beyond 2**32 elements), flat index of each nonzero, ascending.
        values: float32.

    Example:
        >>> StoredWeight.of(np.array([[0.0, 2.0]], np.float32)).places.tolist()
        [1]
    """

    shape: tuple[int, ...]
    places: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, dense: np.ndarray) -> "StoredWeight":
        """Keep what is not zero; NaN is not."""
        flat = np.ascontiguousarray(dense, np.float32).ravel()
        kind = np.uint32 if flat.size <= 1 << 32 else np.uint64
        places, values = [np.zeros(0, kind)], [np.zeros(0, np.float32)]
        for start in range(0, flat.size, CHUNK):
            part = flat[start : start + CHUNK]
            found = np.flatnonzero(part != 0)  # much faster on truth values than on floats
            places.append((found + start).astype(kind))
            values.append(part[found])
        return cls(tuple(dense.shape), np.concatenate(places), np.concatenate(values))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the whole."""
        return code_key(self.shape, self.places, self.values)

    def __len__(self) -> int:
        return self.shape[0]

    def dense(self) -> np.ndarray:
        """The array: float32."""
        flat = np.zeros(int(np.prod(self.shape)), np.float32)
        flat[self.places] = self.values
        return flat.reshape(self.shape)

    def scaled(self, factors: np.ndarray) -> "StoredWeight":
        """The weight with a factor for each filter; nonzeros that become 0 are dropped.

        Args:
            factors: float64, [filters].
        """
        filters = self.places // max(1, int(np.prod(self.shape[1:])))
        values = (self.values * factors[filters]).astype(np.float32)
        kept = values != 0
        return StoredWeight(self.shape, self.places[kept], values[kept])

    @property
    def density(self) -> float:
        """Share of nonzeros, 0 to 1."""
        return len(self.values) / max(1, int(np.prod(self.shape)))
