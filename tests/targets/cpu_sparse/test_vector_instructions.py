"""What every set of instructions shares."""

import pytest

from sparse_cases import SETS
from spokeshave.jit.host_cpu import VectorSet
from spokeshave.targets.cpu_sparse.arm_instructions import ArmInstructions
from spokeshave.targets.cpu_sparse.vector_instructions import VectorInstructions
from spokeshave.targets.cpu_sparse.x86_instructions import X86Instructions


def test_the_base_cannot_write_code():
    with pytest.raises(TypeError, match="abstract"):
        VectorInstructions(SETS[0])  # type: ignore[abstract]


def test_a_label_is_a_line_of_its_own():
    for code in (X86Instructions(VectorSet.SSE), ArmInstructions(VectorSet.NEON)):
        code.label("here")
        assert code.lines == ["here:"]
