"""Bit-plane loops: generated code that runs all ticks of a grid of cores for as many images as a register has bits.

A plane is a register that holds one bit of one number for each image: a spike on an axon is one plane, a potential of K
bits is K planes in two's complement. Arriving spikes are counted by carry-save adders (Harley and Seal; Warren,
Hacker's Delight, section 5-1): five bit operations (two with AVX-512) add a crosspoint for all images of a register.
The plan that the code follows, and what its numbers mean, is `bit_planes`'s.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from llvmlite import ir

from spokeshave.jit.generated_operation import generated
from spokeshave.jit.host_cpu import VectorSet
from spokeshave.jit.native_loops import I32, I64, POINTER, Loops

CORE_FIELDS = ("plane", "first_row", "last_row")
"""Words of 32 bits of a core: its first axon's plane in a slot, and its neurons."""
ROW_FIELDS = (
    "planes", "constant", "first_group", "last_group", "target", "delay", "line",
    "state", "start", "keep", "test", "up_mask", "up", "down_mask", "down",
)  # fmt: skip
"""Words of 32 bits of a neuron. Planes are counted from the start of a slot (`target`) or of the state."""
GROUP_FIELDS = ("shift", "first", "sixteens", "eights")
"""Words of 32 bits of some crosspoints of a neuron that add the same power of two: where they are, and how many."""
ENTRY_FIELDS = ("line", "plane", "delay")
"""Words of 32 bits of an axon that an input line leads to; its delay counts from the tick of the input."""
MOST_PLANES = 40
CHANCE_BITS = 9
"""Of a chance in 256ths: eight that are compared with a random number, and the one of 256."""
_COUNTERS = 9
"""Planes of a sum that stay in registers while spikes are counted: enough for 256 axons of weight 1."""
_U16 = ir.IntType(16)


class PlaneLoops(Loops):
    """A function over planes under construction."""

    def __init__(self, name: str, vectors: VectorSet, **arguments: ir.Type) -> None:
        super().__init__(name, vectors, **arguments)
        self.plane = ir.VectorType(I64, vectors.bytes // 8)
        self.zero = self.plane([0] * self.plane.count)
        self.ones = self.plane([-1] * self.plane.count)

    def memory(self, planes: int) -> ir.Value:
        """Scratch memory for some planes."""
        with self.builder.goto_entry_block():
            memory = self.builder.alloca(ir.ArrayType(self.plane, planes))
            memory.align = self.vectors.bytes
            return self.builder.inttoptr(self.builder.ptrtoint(memory, I64), POINTER)

    def register(self, value: ir.Value) -> ir.Value:
        """A variable that ends up in a register, with its first value."""
        with self.builder.goto_entry_block():
            place = self.builder.alloca(self.plane)
        place.align = self.vectors.bytes
        self.put(value, place)
        return place

    def get(self, place: ir.Value) -> ir.Value:
        """Read a plane."""
        return self.load(place, self.plane, self.vectors.bytes)

    def put(self, value: ir.Value, place: ir.Value) -> None:
        """Write a plane."""
        self.store(value, place, self.vectors.bytes)

    def nth(self, pointer: ir.Value, number: Any) -> ir.Value:
        """Where a plane is, counted from a pointer."""
        return self.at(pointer, self.times(self.integer(number), self.vectors.bytes))

    def word(self, pointer: ir.Value, number: int) -> ir.Value:
        """A 32-bit word of a table, as 64 bits."""
        return self.builder.sext(self.load(self.at(pointer, 4 * number), I32), I64)

    def bit_everywhere(self, number: ir.Value, bit: ir.Value) -> ir.Value:
        """A plane of one bit of a 64-bit number, the same for all images."""
        one = self.builder.and_(self.builder.ashr(number, bit), I64(1))
        return self.splat(self.builder.sub(I64(0), one))

    def splat(self, value: ir.Value) -> ir.Value:
        """A plane of equal words."""
        first = self.builder.insert_element(ir.Constant(self.plane, ir.Undefined), value, I32(0))
        zeros = ir.VectorType(I32, self.plane.count)([0] * self.plane.count)
        return self.builder.shuffle_vector(first, ir.Constant(self.plane, ir.Undefined), zeros)

    def rows_of(self, core: ir.Value) -> AbstractContextManager[ir.Value]:
        """Repeat for each neuron of a core; gives its number."""
        first, last = (self.word(_core(self, core), CORE_FIELDS.index(name)) for name in ("first_row", "last_row"))
        return self.loop(first, last)

    def full_add(self, a: ir.Value, b: ir.Value, c: ir.Value) -> tuple[ir.Value, ir.Value]:
        """(sum, carry) of three bits."""
        build = self.builder
        either = build.xor(a, b)
        return build.xor(either, c), build.or_(build.and_(a, b), build.and_(either, c))

    def clear(self, pointer: ir.Value, planes: ir.Value) -> None:
        """Set planes to zero."""
        with self.loop(0, planes) as number:
            self.put(self.zero, self.nth(pointer, number))


@generated
def tick_loops(vectors: VectorSet) -> Loops:
    """Run all ticks for one register full of images; see `bit_planes.BitPlanes`."""
    loops = PlaneLoops(
        "ticks", vectors, cores=POINTER, core_count=I64, axons=I64, rows=POINTER, groups=POINTER, crosspoints=POINTER,
        entries=POINTER, entry_count=I64, arrived=POINTER, slots_at=POINTER, slot_planes=I64, slots=I64,
        state_at=POINTER, given=POINTER, lines=I64, given_ticks=I64, ticks=I64, left=POINTER, left_lines=I64,
    )  # fmt: skip
    build, args = loops.builder, loops.arguments
    sums = loops.memory(MOST_PLANES + _COUNTERS)
    loops.clear(args["slots_at"], build.mul(args["slot_planes"], args["slots"]))
    loops.clear(args["left"], build.mul(args["ticks"], args["left_lines"]))
    loops.put(loops.zero, loops.nth(args["arrived"], args["axons"]))
    with loops.loop(0, args["core_count"]) as core, loops.rows_of(core) as row:
        _start_state(loops, _row(loops, row))
    with loops.loop(0, args["ticks"]) as tick:
        with build.if_then(build.icmp_signed("<", tick, args["given_ticks"])):
            _take_inputs(loops, tick)
        now = _slot(loops, tick)
        with loops.loop(0, args["core_count"]) as core:
            _arrive(loops, loops.nth(now, loops.word(_core(loops, core), CORE_FIELDS.index("plane"))))
            with loops.rows_of(core) as row:
                _neuron(loops, _row(loops, row), tick, sums)
    return loops


def _core(loops: PlaneLoops, number: ir.Value) -> ir.Value:
    return loops.at(loops.arguments["cores"], loops.times(number, 4 * len(CORE_FIELDS)))


def _row(loops: PlaneLoops, number: ir.Value) -> ir.Value:
    return loops.at(loops.arguments["rows"], loops.times(number, 4 * len(ROW_FIELDS)))


def _arrive(loops: PlaneLoops, at: ir.Value) -> None:
    """Take a core's spikes out of the slot: as they are, and their complements behind the empty plane."""
    arrived, axons = loops.arguments["arrived"], loops.arguments["axons"]
    complements = loops.nth(arrived, loops.builder.add(axons, I64(1)))
    with loops.loop(0, axons) as axon:
        place = loops.nth(at, axon)
        spikes = loops.get(place)
        loops.put(spikes, loops.nth(arrived, axon))
        loops.put(loops.builder.xor(spikes, loops.ones), loops.nth(complements, axon))
        loops.put(loops.zero, place)


@generated
def random_loops(vectors: VectorSet) -> Loops:
    """Draw planes of spikes: `rounds` times one for each line, with the chance that `CHANCE_BITS` planes say.

    A spike is a random number of 8 bits below the chance; both are compared bit by bit, from the lowest.
    """
    loops = PlaneLoops(
        "random", vectors, chances=POINTER, lines=I64, state_at=POINTER, drawn=POINTER, rounds=I64
    )  # fmt: skip
    build, args = loops.builder, loops.arguments
    state = [loops.register(loops.get(loops.nth(args["state_at"], number))) for number in range(4)]
    with loops.loop(0, args["rounds"]) as turn, loops.loop(0, args["lines"]) as line:
        chances = [
            loops.get(loops.nth(args["chances"], build.add(loops.times(args["lines"], bit), line)))
            for bit in range(CHANCE_BITS)
        ]
        below = loops.zero
        for chance in chances[:-1]:
            random = _random_plane(loops, state)
            # Where the bits differ the chance's decides, else what the lower ones said.
            differ = build.xor(random, chance)
            below = build.or_(build.and_(differ, chance), build.and_(build.xor(differ, loops.ones), below))
        place = loops.nth(args["drawn"], build.add(build.mul(turn, args["lines"]), line))
        loops.put(build.or_(below, chances[-1]), place)
    return loops


def _random_plane(loops: PlaneLoops, state: Sequence[ir.Value]) -> ir.Value:
    """Write one step of xoshiro256++ for each 64-bit word of a register."""
    build = loops.builder
    s0, s1, s2, s3 = (loops.get(place) for place in state)

    def times_two_to(value: ir.Value, bits: int) -> ir.Value:
        return build.shl(value, loops.plane([bits] * loops.plane.count))

    def turned(value: ir.Value, bits: int) -> ir.Value:
        rest = build.lshr(value, loops.plane([64 - bits] * loops.plane.count))
        return build.or_(times_two_to(value, bits), rest)

    result = build.add(turned(build.add(s0, s3), 23), s0)
    moved = times_two_to(s1, 17)
    s2, s3 = build.xor(s2, s0), build.xor(s3, s1)
    s1, s0 = build.xor(s1, s2), build.xor(s0, s3)
    s2, s3 = build.xor(s2, moved), turned(s3, 45)
    for value, place in zip((s0, s1, s2, s3), state, strict=True):
        loops.put(value, place)
    return result


def _slot(loops: PlaneLoops, tick: ir.Value) -> ir.Value:
    args = loops.arguments
    number = loops.builder.urem(tick, args["slots"])
    return loops.nth(args["slots_at"], loops.builder.mul(number, args["slot_planes"]))


def _field(loops: PlaneLoops, row: ir.Value, name: str) -> ir.Value:
    return loops.word(row, ROW_FIELDS.index(name))


def _start_state(loops: PlaneLoops, row: ir.Value) -> None:
    build, state, start = loops.builder, _field(loops, row, "state"), _field(loops, row, "start")
    with build.if_then(build.icmp_signed(">=", state, I64(0))):
        at = loops.nth(loops.arguments["state_at"], state)
        with loops.loop(0, _field(loops, row, "planes")) as bit:
            loops.put(loops.bit_everywhere(start, bit), loops.nth(at, bit))


def _take_inputs(loops: PlaneLoops, tick: ir.Value) -> None:
    args, build = loops.arguments, loops.builder
    given = loops.nth(args["given"], build.mul(tick, args["lines"]))
    with loops.loop(0, args["entry_count"]) as number:
        entry = loops.at(args["entries"], loops.times(number, 4 * len(ENTRY_FIELDS)))
        line, plane, delay = (loops.word(entry, field) for field in range(len(ENTRY_FIELDS)))
        target = loops.nth(_slot(loops, build.add(tick, delay)), plane)
        loops.put(build.or_(loops.get(target), loops.get(loops.nth(given, line))), target)


def _neuron(loops: PlaneLoops, row: ir.Value, tick: ir.Value, sums: ir.Value) -> None:
    """V - alpha of a neuron into `sums`; whether it spikes; where the spike goes; its next potential."""
    build, args = loops.builder, loops.arguments
    planes, constant = _field(loops, row, "planes"), _field(loops, row, "constant")
    state = _field(loops, row, "state")
    remembers = build.icmp_signed(">=", state, I64(0))
    kept = loops.nth(args["state_at"], state)
    with build.if_else(remembers) as (then, otherwise):
        with then:
            carry = loops.register(loops.zero)
            with loops.loop(0, planes) as bit:
                total, over = loops.full_add(
                    loops.get(loops.nth(kept, bit)), loops.bit_everywhere(constant, bit), loops.get(carry)
                )
                loops.put(total, loops.nth(sums, bit))
                loops.put(over, carry)
        with otherwise, loops.loop(0, planes) as bit:
            loops.put(loops.bit_everywhere(constant, bit), loops.nth(sums, bit))
    with loops.loop(_field(loops, row, "first_group"), _field(loops, row, "last_group")) as number:
        _group(loops, loops.at(args["groups"], loops.times(number, 4 * len(GROUP_FIELDS))), planes, sums)
    spike = build.xor(loops.get(loops.nth(sums, build.sub(planes, I64(1)))), loops.ones)
    line = _field(loops, row, "line")
    out = loops.nth(args["left"], build.add(build.mul(tick, args["left_lines"]), line))
    slot = _slot(loops, build.add(tick, _field(loops, row, "delay")))
    inside = loops.nth(slot, _field(loops, row, "target"))
    target = build.select(build.icmp_signed(">=", line, I64(0)), out, inside)
    loops.put(build.or_(loops.get(target), spike), target)
    with build.if_then(remembers):
        _reset(loops, row, planes, sums, spike, kept)


def _group(loops: PlaneLoops, group: ir.Value, planes: ir.Value, sums: ir.Value) -> None:
    """Add the spikes of a group of crosspoints, times a power of two, to `sums`."""
    shift, first, sixteens, eights = (loops.word(group, field) for field in range(len(GROUP_FIELDS)))
    low = loops.nth(sums, shift)
    above = loops.builder.sub(loops.builder.sub(planes, shift), I64(_COUNTERS))
    counters = [loops.register(loops.get(loops.nth(low, bit))) for bit in range(_COUNTERS)]
    at = loops.at(loops.arguments["crosspoints"], loops.times(first, 2))
    rest = loops.at(at, loops.times(sixteens, 32))
    for start, turns, bits in ((at, sixteens, 4), (rest, eights, 3)):
        with loops.loop(0, turns) as turn:
            spikes = _spikes(loops, loops.at(start, loops.times(turn, 2 << bits)), 1 << bits)
            _carry_on(loops, _count(loops, spikes, counters[:bits]), counters[bits:], loops.nth(low, _COUNTERS), above)
    for bit, counter in enumerate(counters):
        loops.put(loops.get(counter), loops.nth(low, bit))


def _spikes(loops: PlaneLoops, here: ir.Value, count: int) -> list[ir.Value]:
    build, arrived = loops.builder, loops.arguments["arrived"]
    axons = [build.zext(loops.load(loops.at(here, 2 * one), _U16, 2), I64) for one in range(count)]
    return [loops.get(loops.nth(arrived, axon)) for axon in axons]


def _count(loops: PlaneLoops, bits: Sequence[ir.Value], counters: Sequence[ir.Value]) -> ir.Value:
    """Add bits to counters of 1, 2, 4, ...; as many bits as the last one counts twice. Gives the carry of the last."""
    carries = list(bits)
    for counter in counters:
        value, following = loops.get(counter), []
        for a, b in zip(carries[::2], carries[1::2], strict=True):
            value, carry = loops.full_add(value, a, b)
            following.append(carry)
        loops.put(value, counter)
        carries = following
    return carries[0]


def _carry_on(loops: PlaneLoops, carry: ir.Value, counters: Sequence[ir.Value], at: ir.Value, planes: ir.Value) -> None:
    """Add a carry to the counters above, and what is left of it to the planes behind them."""
    build = loops.builder
    for counter in counters:
        value = loops.get(counter)
        loops.put(build.xor(value, carry), counter)
        carry = build.and_(value, carry)
    rest = loops.register(carry)
    with loops.loop(0, planes) as bit:
        place, carried = loops.nth(at, bit), loops.get(rest)
        value = loops.get(place)
        loops.put(build.xor(value, carried), place)
        loops.put(build.and_(value, carried), rest)


def _reset(loops: PlaneLoops, row: ir.Value, planes: ir.Value, sums: ir.Value, spike: ir.Value, kept: ir.Value) -> None:
    """The next potential. With `sums` = V - alpha: `keep` more is V, `test` more is negative where V is too low."""
    build = loops.builder
    keep, test = _field(loops, row, "keep"), _field(loops, row, "test")
    carry, last = loops.register(loops.zero), loops.register(loops.zero)
    with loops.loop(0, planes) as bit:
        total, over = loops.full_add(loops.get(loops.nth(sums, bit)), loops.bit_everywhere(test, bit), loops.get(carry))
        loops.put(over, carry)
        loops.put(total, last)
    calm = build.xor(spike, loops.ones)
    under = build.and_(loops.get(last), calm)
    calm = build.xor(build.or_(spike, under), loops.ones)
    masks = [loops.splat(_field(loops, row, name)) for name in ("up_mask", "down_mask")]
    adds = [keep, *(_field(loops, row, name) for name in ("up", "down"))]
    carries = [loops.register(loops.zero) for _ in adds]
    with loops.loop(0, planes) as bit:
        value, chosen = loops.get(loops.nth(sums, bit)), loops.zero
        parts = [value, *(build.and_(value, mask) for mask in masks)]
        for part, add, place, where in zip(parts, adds, carries, (calm, spike, under), strict=True):
            total, over = loops.full_add(part, loops.bit_everywhere(add, bit), loops.get(place))
            loops.put(over, place)
            chosen = build.or_(chosen, build.and_(total, where))
        loops.put(chosen, loops.nth(kept, bit))
