"""Assembler: instructions as text to machine code in memory, by the one inside LLVM; no compiler on the machine.

What comes out is position-independent: the text refers to nothing, not even to its own labels. It comes from this
package's own generators: LLVM ends the process over a line that is no instruction.
"""

from collections.abc import Sequence
from functools import cache
from itertools import pairwise

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


_KNOWN: dict[tuple[str, str], bytes] = {}
"""Triple of the target and text of an instruction -> its machine code."""
_MOST_KNOWN = 1 << 16
_ALIGNMENT = 16


def assemble_routines(lines: Sequence[str]) -> tuple[bytes, dict[str, int]]:
    """Translate routines; instructions that were translated before, for other routines, are not translated again.

    Routines of one layer are made of a few hundred different instructions, thousands of times, and other tiles of the
    same layer of nearly the same ones: reading each text once takes a small part of the time.

    Args:
        lines: instructions, none of which refers to a label or depends on where it stands, and labels, each of which is
            put at a multiple of 16 bytes.

    Returns:
        the machine code and the offset of each label in it, in bytes.

    Example:
        >>> code, places = assemble_routines(["first:", "nop", "second:", "nop"])
        >>> places
        {'first': 0, 'second': 16}
    """
    target, places = host_cpu().triple, {}
    if len(_KNOWN) > _MOST_KNOWN:
        _KNOWN.clear()
    known = {line: _KNOWN.get((target, line)) for line in dict.fromkeys(lines) if not line.endswith(":")}
    known |= _translated([line for line, code in known.items() if code is None], target)
    parts, size = [], 0
    for line in lines:
        part = known.get(line)
        if part is None:
            part = bytes(-size % _ALIGNMENT)
            places[line[:-1]] = size + len(part)
        parts.append(part)
        size += len(part)
    return b"".join(parts), places


def _translated(lines: list[str], target: str) -> dict[str, bytes]:
    if not lines:
        return {}
    labels = [f"at{number}" for number in range(len(lines) + 1)]
    text = "".join(f"{label}:\n{line}\n" for label, line in zip(labels, lines, strict=False))
    code, places = assemble(f"{text}{labels[-1]}:\n", labels)
    borders = [places[label] for label in labels]
    found = {line: code[first:last] for line, (first, last) in zip(lines, pairwise(borders), strict=True)}
    _KNOWN.update({(target, line): part for line, part in found.items()})
    return found
