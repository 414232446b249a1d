"""The code generator keeps to the set of instructions that it is given."""

import re

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


LOOP = """
define void @f(ptr %p, i64 %n) {
entry:
  br label %again
again:
  %i = phi i64 [0, %entry], [%next, %again]
  %at = getelementptr float, ptr %p, i64 %i
  %x = load float, ptr %at
  %y = fmul float %x, %x
  store float %y, ptr %at
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %again, label %done
done:
  ret void
}
"""


@pytest.mark.parametrize("listed", [{"neon", "sve", "sve2"}, {"neon"}])
def test_neon_code_has_no_scalable_vectors(monkeypatch, listed):
    cpu = HostCpu("neoverse-v1", "aarch64-unknown-linux-gnu", frozenset(listed))
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    monkeypatch.setattr(llvm_target, "host_cpu", lambda: cpu)
    with LLVM_LOCK:
        target = target_machine(VectorSet.NEON)
        module = llvm.parse_assembly(LOOP)
        passes = llvm.create_pass_builder(target, llvm.create_pipeline_tuning_options(speed_level=2))
        passes.getModulePassManager().run(module, passes)
        text = target.emit_assembly(module)
    assert ".4s" in text and not re.search(r"\bz\d+\.s", text)
