"""Stored weight: positions and values of the nonzeros, which is all that a sparse network keeps of a weight."""

from dataclasses import dataclass

import numpy as np


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
        places = np.flatnonzero(flat)
        kind = np.uint32 if flat.size <= 1 << 32 else np.uint64
        return cls(tuple(dense.shape), places.astype(kind), flat[places])

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
