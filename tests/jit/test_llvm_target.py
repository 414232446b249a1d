"""The code generator keeps to the set of instructions that it is given."""

import llvmlite.binding as llvm
import pytest

from spokeshave.jit import llvm_target
from spokeshave.jit.host_cpu import HostCpu, VectorSet, host_cpu
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


def test_neon_code_has_no_scalable_vectors(monkeypatch):
    cpu = HostCpu("neoverse-v1", "aarch64-unknown-linux-gnu", frozenset({"neon", "sve", "i8mm"}))
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    monkeypatch.setattr(llvm_target, "host_cpu", lambda: cpu)
    with LLVM_LOCK:
        text = target_machine(VectorSet.NEON).emit_assembly(llvm.parse_assembly(IR))
    assert text.count("fmul") == 4 and ".4s" in text and "z0" not in text
