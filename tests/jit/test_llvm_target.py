"""The code generator keeps to the set of instructions that it is given."""

import llvmlite.binding as llvm
import pytest

from spokeshave.jit.host_cpu import VectorSet, host_cpu
from spokeshave.jit.llvm_target import LLVM_LOCK, target_machine

IR = """
define void @f(ptr %p) {
  %x = load <16 x float>, ptr %p
  %y = fmul <16 x float> %x, %x
  store <16 x float> %y, ptr %p
  ret void
}
"""
NARROWER = {VectorSet.AVX512: "zmm", VectorSet.AVX2: "ymm", VectorSet.SSE: "xmm"}


@pytest.mark.parametrize("vectors", [v for v in NARROWER if host_cpu().supports(v)])
def test_registers_are_no_wider_than_asked_for(vectors):
    with LLVM_LOCK:
        text = target_machine(vectors).emit_assembly(llvm.parse_assembly(IR))
    used = {name for name in NARROWER.values() if f"%{name}" in text or f" {name}" in text}
    assert used == {NARROWER[vectors]}
