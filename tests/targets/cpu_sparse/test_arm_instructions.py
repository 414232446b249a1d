"""Instructions of Arm as they run in an emulator: each one on numbers, against numpy."""

import numpy as np
import pytest

from arm_cases import assemble, emulate, guarded, unicorn
from spokeshave.errors import UnsupportedLayer
from spokeshave.jit.executable_memory import ExecutableMemory
from spokeshave.jit.host_cpu import VectorSet
from spokeshave.targets.cpu_sparse.arm_instructions import ArmInstructions
from spokeshave.targets.cpu_sparse.tap_shapes import SINGLE, Tile
from spokeshave.targets.cpu_sparse.tile_routines import TRANSITIONS, Block, Pitches, write_routines

FAR = [0, 16, 65520, 65536, 65552, (1 << 24) - 16, 1 << 24, (1 << 24) + 65552, 5 << 22]
"""Distances that take an instruction's own offset, one addition more, or a register full of it."""


def writer() -> ArmInstructions:
    code = ArmInstructions(VectorSet.NEON)
    code.label("routine")
    return code


def run(code: ArmInstructions, stream: np.ndarray, source: np.ndarray, target: np.ndarray) -> None:
    code.give_back()
    text, places = assemble("\n".join(code.lines), ["routine"])
    # The routine alone may use v8 to v15 as it likes: a run of calls saves them, so that one is made of it here.
    start = -(-len(text) // 64) * 64
    memory = ExecutableMemory(text.ljust(start, b"\0") + code.calls(np.array([places["routine"]]), start))
    emulate(memory.address + start, stream.ctypes.data, source.ctypes.data, 0, target.ctypes.data, 0)


def filled(values: object, dtype: type[np.generic] = np.float32) -> np.ndarray:
    values = np.asarray(values, dtype)
    memory = guarded(values.shape, dtype)
    memory[...] = values
    return memory


def test_arithmetic():
    code, size = writer(), 16
    data = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    target = guarded((5, 4))
    code.load(0, code.input, 0)
    code.weight(31, code.input, 4)
    code.multiply_add_from(0, 31, code.input, size, 3)
    code.store(0, code.output, 0)
    code.load(2, code.input, 2 * size)
    code.multiply_add(0, 31, 2, 3)
    code.store(0, code.output, size)
    code.add_from(0, code.input, size, 3)
    code.zero(14)
    code.rectify(0, 14, 3)
    code.store(0, code.output, 2 * size)
    code.copy(5, 2)
    code.store(5, code.output, 3 * size)
    code.broadcast(8, code.input, 8)
    code.store(8, code.output, 4 * size)
    run(code, target, filled(data), target)
    first = data[0] + data[0, 1] * data[1]
    second = first + data[0, 1] * data[2]
    wanted = [first, second, np.maximum(second + data[1], 0), data[2], [data[0, 2]] * 4]
    np.testing.assert_allclose(target, wanted, rtol=1e-6, atol=1e-6)


def test_rectifying_keeps_nan_and_infinity():
    code = writer()
    code.zero(1)
    code.load(0, code.input, 0)
    code.rectify(0, 1, 2)
    code.store(0, code.output, 0)
    target = guarded((4,))
    run(code, target, filled([np.nan, -np.inf, np.inf, -1]), target)
    np.testing.assert_array_equal(target, [np.nan, 0, np.inf, 0])


@pytest.mark.parametrize("offset", FAR)
def test_any_distance_is_reached(offset):
    source, target = guarded((offset // 4 + 4,)), guarded((offset // 4 + 4,))
    source[-4:], target[-4:] = [1, 2, 3, 4], np.nan
    code = writer()
    code.load(9, code.input, offset)
    code.store(9, code.output, offset)
    run(code, source, source, target)
    np.testing.assert_array_equal(target[-4:], [1, 2, 3, 4])
    assert not target[:-4].any()


@pytest.mark.parametrize("offset", [0, 4, 4092, 16380, 16384, 16388, 70000])
def test_the_stream_holds_signed_offsets_and_weights_at_any_distance(offset):
    stream = guarded((offset // 4 + 2,), np.int32)
    stream[-2:] = [-32, np.float32(1.5).view(np.int32)]
    source, target = filled(np.arange(16)), guarded((4,))
    code = writer()
    code.advance(code.input, 48)
    code.point(code.pointers[3], code.input, offset)
    code.weight(1, code.stream, offset + 4)
    code.zero(0)
    code.multiply_add_from(0, 1, code.pointers[3], 0, 2)
    code.store(0, code.output, 0)
    run(code, stream, source, target)
    np.testing.assert_array_equal(target, 1.5 * source[4:8])


@pytest.mark.parametrize("count", [0, 4, 4092, 4096, 5000, 1 << 20])
def test_pointers_advance_by_any_count(count):
    code = writer()
    code.advance(code.input, count)
    code.load(0, code.input, 0)
    code.store(0, code.output, 0)
    source, target = guarded((count // 4 + 4,)), guarded((4,))
    source[-4:] = [1, 2, 3, 4]
    run(code, source, source, target)
    np.testing.assert_array_equal(target, [1, 2, 3, 4])


def test_calls_run_in_order_and_return():
    code = ArmInstructions(VectorSet.NEON)
    for name, offset in (("one", 0), ("two", 16)):
        code.label(name)
        code.load(8, code.input, offset)
        code.store(8, code.output, offset)
        code.advance(code.output, 32)
        code.give_back()
    text, places = assemble("\n".join(code.lines), ["one", "two"])
    start = -(-len(text) // 64) * 64
    calls = code.calls(np.array([places["one"], places["two"]], np.int64), start)
    memory = ExecutableMemory(text.ljust(start, b"\0") + calls)
    source, target = filled(np.repeat([[1.0], [2.0]], 4, axis=1)), guarded((4, 4))
    emulate(memory.address + start, 0, source.ctypes.data, 0, target.ctypes.data, 0)  # checks the caller's registers
    np.testing.assert_array_equal(target[:, 0], [1, 0, 0, 2])


def test_what_is_written_as_numbers_is_what_the_assembler_makes():
    lines = ["here:", "stp x29, x30, [sp, #-80]!", "mov x29, sp"]
    lines += [f"stp d{n}, d{n + 1}, [sp, #{8 * n - 48}]" for n in (8, 10, 12, 14)]
    lines += [f"ldp d{n}, d{n + 1}, [sp, #{8 * n - 48}]" for n in (8, 10, 12, 14)]
    lines += ["ldp x29, x30, [sp], #80", "ret"]
    wanted, _ = assemble("\n".join(lines), ["here"])
    assert ArmInstructions(VectorSet.NEON).calls(np.array([], np.int64), 0) == wanted


@pytest.mark.parametrize(("place", "start"), [(0, (1 << 27) + 64), ((1 << 27) + 64, 0)])
def test_a_routine_out_of_reach_is_refused(place, start):
    with pytest.raises(UnsupportedLayer, match="128 MiB on Arm"):
        ArmInstructions(VectorSet.NEON).calls(np.array([place]), start)


@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize("residual", [0, 4096])
def test_every_label_has_code(rectify, residual):
    code = ArmInstructions(VectorSet.NEON)
    shapes = [SINGLE, ((0, 0), (0, 1))]
    macros = [((0, 0),), ((1, 0),), ((1, 0), (0, 0))]
    pitches = Pitches(640, 640, 6400, residual, residual * 10)
    labels = write_routines(code, Block(Tile(2, 3), 1, rectify), pitches, shapes, macros)
    text, places = assemble("\n".join(code.lines), labels)
    assert len(labels) == len(macros) + 2 + len(TRANSITIONS) == len(set(places.values()))
    assert all(0 <= place < len(text) for place in places.values())
    assert len([line for line in code.lines if line.startswith("fmla")]) == 6 * (1 + 2 + 3)


def test_the_emulator_notices_what_lies_outside_and_lost_registers():
    code, target = writer(), guarded((4,))
    code.load(0, code.input, 16)
    with pytest.raises(unicorn.UcError):
        run(code, target, target, target)
    text, places = assemble("routine:\nmovi v8.2d, #0\nret", ["routine"])
    memory = ExecutableMemory(text)
    with pytest.raises(AssertionError):
        emulate(memory.address + places["routine"])
