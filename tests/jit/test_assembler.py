import platform
from concurrent.futures import ThreadPoolExecutor

import pytest

from spokeshave.errors import InvalidArgument
from spokeshave.jit import assembler, llvm_target
from spokeshave.jit.assembler import assemble, assemble_routines
from spokeshave.jit.host_cpu import HostCpu, host_cpu

X86 = platform.machine() in ("x86_64", "AMD64")


def test_labels_are_where_their_instructions_are() -> None:
    code, places = assemble("first:\nnop\nnop\n.p2align 6\nsecond:\nnop", ["second", "first"])
    assert places == {"first": 0, "second": 64}
    assert len(code) > 64


@pytest.mark.skipif(not X86, reason="instructions of x86")
def test_known_bytes() -> None:
    assert assemble("here:\nret", ["here"])[0][:1] == b"\xc3"


def test_a_label_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="there"):
        assemble("here:\nnop", ["there"])


def test_instructions_are_translated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assembler._KNOWN.clear()
    first, places = assemble_routines(["one:", "nop", "nop", "ret", "two:", "ret"])
    whole, where = assemble("one:\nnop\nnop\nret\n.p2align 4\ntwo:\nret\nend:", ["one", "two", "end"])
    assert places == {"one": 0, "two": 16} == {name: where[name] for name in ("one", "two")}
    assert len(first) == where["end"] and first[:2] + first[16:] == whole[:2] + whole[16 : where["end"]]
    monkeypatch.setattr(assembler, "assemble", lambda *_: pytest.fail("translated again"))
    again, places = assemble_routines(["two:", "ret", "other:", "nop", "ret"])
    assert places == {"two": 0, "other": 16} and again[16:17] == whole[:1]
    assert assemble_routines([]) == (b"", {})


def test_what_is_known_is_forgotten_before_it_takes_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembler, "_MOST_KNOWN", 1)
    for _ in range(3):
        assert assemble_routines(["one:", "nop", "ret"])[1] == {"one": 0}
    assert len(assembler._KNOWN) <= 2


def test_many_threads_get_the_same_code() -> None:
    text = "\n".join(f"l{n}:\nnop" for n in range(200))
    labels = [f"l{n}" for n in range(200)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: assemble(text, labels), range(8)))
    assert all(result == results[0] for result in results)


@pytest.mark.skipif(not X86, reason="LLVM's assembler in llvmlite reads the host's instructions only")
def test_object_files_of_macos_know_their_labels_too(monkeypatch: pytest.MonkeyPatch) -> None:
    text, labels = "first:\nnop\n.p2align 4\nsecond:\nret\nthird:\nret", ["third", "first", "second"]
    there = HostCpu(host_cpu().name, "x86_64-apple-macosx13", host_cpu().features)
    monkeypatch.setattr(assembler, "host_cpu", lambda: there)
    monkeypatch.setattr(llvm_target, "host_cpu", lambda: there)
    monkeypatch.setattr(assembler, "_machine", llvm_target.target_machine)
    code, places = assemble(text, labels)
    assert places == {"third": 17, "first": 0, "second": 16} and code[16:18] == b"\xc3\xc3"
