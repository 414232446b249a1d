"""Work loop: what each thread runs: take the next tile of the next share of filters, until none is left.

Written as LLVM IR, so one text serves every CPU. Items are numbered lanes-group first, then share of filters, then
tile: a thread that takes neighbouring items reuses the share's program and weights.
"""

import ctypes
from functools import cache

import llvmlite.binding as llvm

from spokeshave.jit.llvm_target import LLVM_LOCK, target_machine


class Work(ctypes.Structure):
    """The argument of the loop; addresses and distances in bytes."""

    _fields_ = [
        ("next_item", ctypes.c_int64),
        ("next_thread", ctypes.c_int64),
        ("items", ctypes.c_int64),
        ("tiles", ctypes.c_int64),
        ("shares", ctypes.c_int64),
        ("tile_places", ctypes.c_int64),  # of int64 triples: offset in input, output, residual
        ("share_programs", ctypes.c_int64),  # of int64 pairs: address of the calls, of the stream
        ("input", ctypes.c_int64),
        ("input_group", ctypes.c_int64),
        ("output", ctypes.c_int64),
        ("output_group", ctypes.c_int64),
        ("residual", ctypes.c_int64),
        ("residual_group", ctypes.c_int64),
        ("scratch", ctypes.c_int64),
        ("scratch_thread", ctypes.c_int64),
    ]


_FIELD = {field[0]: number for number, field in enumerate(Work._fields_)}


def _field(name: str) -> str:
    return f"  %at_{name} = getelementptr i64, ptr %work, i64 {_FIELD[name]}\n  %{name} = load i64, ptr %at_{name}\n"


def _table(name: str, index: str, stride: int, part: int, table: str) -> str:
    return (
        f"  %{name}_row = mul i64 {index}, {stride}\n  %{name}_place = add i64 %{name}_row, {part}\n"
        f"  %{name}_base = inttoptr i64 %{table} to ptr\n"
        f"  %{name}_at = getelementptr i64, ptr %{name}_base, i64 %{name}_place\n"
        f"  %{name} = load i64, ptr %{name}_at\n"
    )


def _address(name: str, tile: str) -> str:
    return (
        f"  %{name}_far = mul i64 %group, %{name}_group\n  %{name}_group_at = add i64 %{name}, %{name}_far\n"
        f"  %{name}_tile = add i64 %{name}_group_at, %{tile}\n  %{name}_pointer = inttoptr i64 %{name}_tile to ptr\n"
    )


def _ir() -> str:
    constants = "".join(_field(name) for name in list(_FIELD)[2:])
    body = (
        _table("in_tile", "%tile", 3, 0, "tile_places")
        + _table("out_tile", "%tile", 3, 1, "tile_places")
        + _table("res_tile", "%tile", 3, 2, "tile_places")
        + _table("calls", "%share", 2, 0, "share_programs")
        + _table("stream", "%share", 2, 1, "share_programs")
        + _address("input", "in_tile")
        + _address("output", "out_tile")
        + _address("residual", "res_tile")
    )
    return f"""
define void @work_loop(ptr %work) {{
entry:
{constants}
  %at_thread = getelementptr i64, ptr %work, i64 {_FIELD["next_thread"]}
  %thread = atomicrmw add ptr %at_thread, i64 1 monotonic
  %mine = mul i64 %thread, %scratch_thread
  %my_scratch = add i64 %scratch, %mine
  %scratch_pointer = inttoptr i64 %my_scratch to ptr
  br label %take
take:
  %item = atomicrmw add ptr %work, i64 1 monotonic
  %left = icmp slt i64 %item, %items
  br i1 %left, label %run, label %done
run:
  %tile = urem i64 %item, %tiles
  %rest = udiv i64 %item, %tiles
  %share = urem i64 %rest, %shares
  %group = udiv i64 %rest, %shares
{body}
  %calls_pointer = inttoptr i64 %calls to ptr
  %stream_pointer = inttoptr i64 %stream to ptr
  call void %calls_pointer(ptr %stream_pointer, ptr %input_pointer, ptr %scratch_pointer, ptr %output_pointer,
                           ptr %residual_pointer)
  br label %take
done:
  ret void
}}
"""


@cache
def _engine() -> llvm.ExecutionEngine:
    with LLVM_LOCK:
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(_ir()), target_machine())
        engine.finalize_object()
    return engine


@cache
def work_loop():
    """The loop as a C function of the address of a `Work`."""
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(loop_address())


@cache
def loop_address() -> int:
    """Address of the loop."""
    return _engine().get_function_address("work_loop")
