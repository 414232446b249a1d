"""LLVM's target: the code generator inside llvmlite, set up for this machine and for a chosen set of vectors."""

from threading import RLock

import llvmlite.binding as llvm

from spokeshave.errors import JitRefused
from spokeshave.jit.host_cpu import VectorSet, host_cpu

LLVM_LOCK = RLock()
"""LLVM's global context is not safe under threads: hold this around every use of it."""

_WIDER = {
    VectorSet.AVX512: (),
    VectorSet.AVX2: ("avx512", "avx10"),
    VectorSet.SSE: ("avx", "fma", "f16c", "vaes", "vpclmulqdq", "sha512", "sm3", "sm4"),
    VectorSet.NEON: ("sve", "sme"),
}
"""Set of vectors -> beginnings of features that would let LLVM use a wider one, or imply one that would."""


def target_machine(vectors: VectorSet | None = None) -> llvm.TargetMachine:
    """Code generator for this CPU; a new one, for an execution engine takes what it is given as its own.

    Args:
        vectors: widest set that generated code may use; none for whatever the CPU has.

    Raises:
        JitRefused: LLVM has no generator for this machine.
    """
    with LLVM_LOCK:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        llvm.initialize_native_asmparser()
        left_out = {name for name in host_cpu().features if vectors and name.startswith(_WIDER[vectors])}
        if host_cpu().triple.startswith(("x86_64", "i686")):
            left_out.add("prefer-256-bit")  # it would halve the width
        else:
            left_out |= {"sve", "sme"}  # a CPU's name implies them, even where the system does not let them be used
        flags = [f"{'-' if name in left_out else '+'}{name}" for name in sorted(host_cpu().features | left_out)]
        try:
            return llvm.Target.from_triple(host_cpu().triple).create_target_machine(
                cpu=host_cpu().name, features=",".join(flags), opt=2, reloc="pic", codemodel="small"
            )
        except RuntimeError as error:
            raise JitRefused(f"LLVM cannot generate code for {host_cpu().triple}: {error}") from error
