"""Host CPU: which vector instructions this machine has, and what a code generator must know of each set.

A set is named by the widest float32 vector that it works on. The generator may be told to use a narrower set than the
machine has: that is how the narrow variants are tested on a wide machine.
"""

from dataclasses import dataclass, replace
from enum import Enum
from functools import cache

import llvmlite.binding as llvm

from spokeshave.errors import InvalidArgument


@dataclass(frozen=True)
class VectorTraits:
    """What a generator must know of a set of vector instructions.

    Attributes:
        lanes: float32 values in a register.
        registers: how many vector registers there are.
        features: of the CPU, as LLVM names them, all of which the set needs.
    """

    lanes: int
    registers: int
    features: tuple[str, ...]


class VectorSet(Enum):
    """Sets of vector instructions, widest first."""

    AVX512 = VectorTraits(16, 32, ("avx512f", "avx512vl", "avx512dq", "avx512bw", "fma"))
    AVX2 = VectorTraits(8, 16, ("avx2", "fma"))
    SSE = VectorTraits(4, 16, ("sse4.1",))
    NEON = VectorTraits(4, 32, ("neon",))

    @property
    def lanes(self) -> int:
        """Float32 values in a register."""
        return self.value.lanes

    @property
    def bytes(self) -> int:
        """Size of a register."""
        return 4 * self.value.lanes

    @property
    def registers(self) -> int:
        """How many vector registers there are."""
        return self.value.registers


@dataclass(frozen=True)
class HostCpu:
    """The machine that code is generated for.

    Attributes:
        name: as LLVM names the CPU, such as znver5.
        triple: architecture, vendor and system, as LLVM writes them.
        features: every feature that it has.
    """

    name: str
    triple: str
    features: frozenset[str]

    def supports(self, vectors: VectorSet) -> bool:
        """Say whether it has all that a set of vector instructions needs."""
        return set(vectors.value.features) <= self.features

    def widest(self) -> VectorSet | None:
        """The widest set that it has; none on a machine that no kernel is generated for."""
        return next((vectors for vectors in VectorSet if self.supports(vectors)), None)

    def as_architecture(self) -> "HostCpu":
        """Correct what a system says of NEON: 64-bit Arm always has it, and no code is generated for 32-bit Arm."""
        little = self.triple.startswith(("aarch64-", "arm64-", "arm64e-"))
        return replace(self, features=self.features | {"neon"} if little else self.features - {"neon"})

    def require(self, vectors: VectorSet) -> None:
        """Refuse a set that it lacks.

        Raises:
            InvalidArgument: with the features that are missing.
        """
        missing = sorted(set(vectors.value.features) - self.features)
        if missing:
            raise InvalidArgument(f"{vectors.name} needs {', '.join(missing)}, which this CPU ({self.name}) lacks")


@cache
def host_cpu() -> HostCpu:
    """Look at the machine that this runs on.

    Example:
        >>> host_cpu().widest() in (*VectorSet, None)
        True
    """
    found = llvm.get_host_cpu_features()
    triple = llvm.get_process_triple()
    names = {name for name, present in found.items() if present}
    return HostCpu(llvm.get_host_cpu_name(), triple, frozenset(names)).as_architecture()
