"""Native loops: small functions of loops over vectors, written with llvmlite's builder, compiled for this CPU.

For what is not a sparse product: changing layouts, pooling, normalization. Vectors have the width of the chosen set,
and the code may use no wider one.
"""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir

from spokeshave.errors import JitRefused
from spokeshave.jit.code_cache import cached, code_key, generator
from spokeshave.jit.host_cpu import VectorSet, host_cpu
from spokeshave.jit.llvm_target import LLVM_LOCK, target_machine

I64 = ir.IntType(64)
I32 = ir.IntType(32)
F32 = ir.FloatType()
POINTER = ir.PointerType()


def native_address(function: Callable[..., None]) -> int:
    """Where the machine code of a compiled function begins."""
    return ctypes.cast(function, ctypes.c_void_p).value or 0  # type: ignore[arg-type]


class Loops:
    """One function under construction.

    Args:
        name: of the function.
        vectors: set of instructions to write for.
        arguments: 64-bit integers or pointers, by name.

    Attributes:
        builder: llvmlite's, at the end of what was written so far.
        arguments: values by name.
        vector: type of a register full of floats.
        signature: a letter for each argument: p for a pointer, i for an integer.
    """

    def __init__(self, name: str, vectors: VectorSet, **arguments: ir.Type) -> None:
        self.name, self.vectors = name, vectors
        self.vector = ir.VectorType(F32, vectors.lanes)
        self.module = ir.Module(name)
        self.module.triple = host_cpu().triple
        function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), list(arguments.values())), name)
        self.arguments = dict(zip(arguments, function.args, strict=True))
        self.signature = "".join("p" if kind == POINTER else "i" for kind in arguments.values())
        # llvmlite has no annotations, and what a type checker infers of its decorators is wrong.
        self.builder: Any = ir.IRBuilder(function.append_basic_block("entry"))

    @contextmanager
    def loop(self, start: Any, stop: Any, step: int = 1) -> Iterator[ir.Value]:
        """Repeat what is written inside for start, start + step, ... below stop; gives the counter."""
        build = self.builder
        start, stop = self.integer(start), self.integer(stop)
        before = build.block
        head = build.append_basic_block("head")
        body = build.append_basic_block("body")
        after = build.append_basic_block("after")
        build.branch(head)
        build.position_at_end(head)
        counter = build.phi(I64)
        counter.add_incoming(start, before)
        build.cbranch(build.icmp_signed("<", counter, stop), body, after)
        build.position_at_end(body)
        yield counter
        following = build.add(counter, I64(step))
        counter.add_incoming(following, build.block)
        build.branch(head)
        build.position_at_end(after)

    @staticmethod
    def integer(value: Any) -> ir.Value:
        """A Python integer as a 64-bit constant; values pass."""
        return I64(value) if isinstance(value, int) else value

    def at(self, pointer: ir.Value, *distances: Any) -> ir.Value:
        """Pointer moved by some bytes."""
        for distance in distances:
            pointer = self.builder.gep(pointer, [self.integer(distance)], source_etype=ir.IntType(8))
        return pointer

    def load(self, pointer: ir.Value, kind: ir.Type | None = None, align: int = 4) -> ir.Value:
        """Read a vector, or a value of another type."""
        loaded = self.builder.load(pointer, typ=kind or self.vector)
        loaded.align = align
        return loaded

    def store(self, value: ir.Value, pointer: ir.Value, align: int = 4) -> None:
        """Write a value."""
        self.builder.store(value, pointer).align = align

    def variable(self) -> ir.Value:
        """Memory for one vector; ends up in a register."""
        with self.builder.goto_entry_block():  # inside a loop the stack would grow with every turn
            place = self.builder.alloca(self.vector)
        place.align = self.vectors.bytes
        return place

    def intrinsic(self, name: str, *arguments: ir.Value) -> ir.Value:
        """Call one of LLVM's functions of vectors, such as sqrt."""
        return self.call(f"llvm.{name}.v{self.vectors.lanes}f32", self.vector, *arguments)

    def call(self, name: str, kind: ir.Type, *arguments: Any) -> ir.Value:
        """Call a function that LLVM knows by its full name, declared where it is called first.

        Args:
            name: such as llvm.ctpop.i16.
            kind: of its result.
            arguments: of the call.
        """
        function = self.module.globals.get(name)
        if function is None:
            signature = ir.FunctionType(kind, [argument.type for argument in arguments])
            function = ir.Function(self.module, signature, name)
        return self.builder.call(function, arguments)

    def multiply_add(self, factor: ir.Value, other: ir.Value, summand: ir.Value) -> ir.Value:
        """factor * other + summand, in one instruction where the set has it."""
        return self.intrinsic("fmuladd" if self.vectors is VectorSet.SSE else "fma", factor, other, summand)

    def times(self, value: ir.Value, count: Any) -> ir.Value:
        """value * count, for addresses."""
        return self.builder.mul(value, self.integer(count))

    def finished(self) -> str:
        """End the function; its text, as LLVM reads it."""
        self.builder.ret_void()
        return str(self.module)

    def compile(self) -> Callable[..., None]:
        """Finish the function and make it callable with Python integers; its code is kept on disk."""
        text = self.finished()
        key = code_key("object", generator(self.vectors), text)
        kept = cached(key, lambda: {"object": object_file(self.name, text, self.vectors)})
        return load_function(self.name, self.signature, kept["object"], self.vectors)


def object_file(name: str, text: str, vectors: VectorSet) -> np.ndarray:
    """Translate a function; may be called by several threads at a time.

    Args:
        name: of the function.
        text: from `Loops.finished`.
        vectors: widest set that the code may use.

    Returns:
        uint8, an object file.

    Raises:
        JitRefused: LLVM cannot do it.
    """
    try:
        target = target_machine(vectors)
        module = llvm.parse_assembly(text, llvm.create_context())  # the global one would have to be locked meanwhile
        module.verify()
        passes = llvm.create_pass_builder(target, llvm.create_pipeline_tuning_options(speed_level=2))
        _cleaning().run(module, passes)
        return np.frombuffer(target.emit_object(module), np.uint8)
    except (RuntimeError, OSError) as error:
        raise JitRefused(f"{name}: LLVM could not make code for {host_cpu().name}: {error}") from error


def _cleaning() -> llvm.ModulePassManager:
    """What hand-written loops gain by; all of LLVM's usual passes take five times as long, for code of equal speed."""
    manager = llvm.create_new_module_pass_manager()
    manager.add_sroa_pass()
    manager.add_instruction_combine_pass()
    manager.add_simplify_cfg_pass()
    manager.add_loop_rotate_pass()
    manager.add_instruction_combine_pass()
    manager.add_simplify_cfg_pass()
    return manager


def load_function(name: str, signature: str, image: np.ndarray, vectors: VectorSet) -> Callable[..., None]:
    """A function of an object file, to be called with Python integers.

    Args:
        name: of the function.
        signature: from `Loops.signature`.
        image: from `object_file`.
        vectors: likewise.

    Raises:
        JitRefused: the system or LLVM does not let it be loaded.
    """
    with LLVM_LOCK:
        try:
            engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target_machine(vectors))
            engine.add_object_file(llvm.object_file.ObjectFileRef.from_data(image.tobytes()))
            engine.finalize_object()
        except (RuntimeError, OSError) as error:
            raise JitRefused(f"{name}: the code for {host_cpu().name} cannot be loaded: {error}") from error
        kinds = [ctypes.c_void_p if kind == "p" else ctypes.c_int64 for kind in signature]
        function = ctypes.CFUNCTYPE(None, *kinds)(engine.get_function_address(name))
    function.engine = engine  # type: ignore[attr-defined] # owns the code
    return function
