"""Assembler: instructions as text to machine code in memory, by the one inside LLVM; no compiler on the machine.

What comes out is position-independent: the text refers to nothing, not even to its own labels. It comes from this
package's own generators: LLVM ends the process over a line that is no instruction.
"""

from functools import cache

import llvmlite.binding as llvm
import numpy as np

from spokeshave.errors import InvalidArgument
from spokeshave.jit.host_cpu import host_cpu
from spokeshave.jit.llvm_target import LLVM_LOCK, target_machine


@cache
def _machine() -> llvm.TargetMachine:
    return target_machine()


def assemble(text: str, labels: list[str]) -> tuple[bytes, dict[str, int]]:
    """Translate instructions, in Intel's notation on x86.

    Args:
        text: instructions and labels, a line each.
        labels: those whose place is wanted.

    Returns:
        the machine code and the offset of each label in it, in bytes.

    Raises:
        InvalidArgument: a label is not in the text.

    Example:
        >>> code, places = assemble("first:\\nnop\\nsecond:\\nnop", ["first", "second"])
        >>> places["first"], places["second"] < len(code)
        (0, True)
    """
    lines = text.split("\n")
    missing = set(labels) - {line[:-1] for line in lines if line.endswith(":")}
    if missing:
        raise InvalidArgument(f"labels {sorted(missing)} are not in the text")
    # In the object files of macOS only a label that begins with L is resolved here; others are left to a linker.
    text = "\n".join([f"L{line}" if line.endswith(":") else line for line in lines])
    table = "\n".join([".p2align 2", "L_table:", *(f".long L{label}-L_table" for label in labels)])
    dialect = ".intel_syntax noprefix\n" if host_cpu().triple.startswith(("x86_64", "i686")) else ""
    escaped = f"{dialect}.text\n{text}\n{table}\n".replace("\\", "\\5C").replace('"', "\\22").replace("\n", "\\0A")
    with LLVM_LOCK:
        module = llvm.parse_assembly(f'target triple = "{host_cpu().triple}"\nmodule asm "{escaped}"\n')
        image = llvm.object_file.ObjectFileRef.from_data(_machine().emit_object(module))
        sections = {section.name(): bytes(section.data()) for section in image.sections() if section.is_text()}
    code = max(sections.values(), key=len)
    table_at = len(code) - 4 * len(labels)
    return code[:table_at], {
        label: table_at + int(distance)
        for label, distance in zip(labels, np.frombuffer(code[table_at:], np.int32), strict=True)
    }
