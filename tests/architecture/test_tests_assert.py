"""Every test can fail: it asserts, expects an exception or a warning, or calls what does."""

import ast
from pathlib import Path

ASSERTING_CALLS = ("assert", "check", "expect", "raises", "warns", "fail")


def asserts(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name.lstrip("_").startswith(ASSERTING_CALLS):
                return True
    return False


def functions_of_tests(root: Path) -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    return [
        (f"{file.relative_to(root)}:{node.lineno} {node.name}", node)
        for file in sorted((root / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]


def test_every_test_asserts_something(root: Path) -> None:
    functions = functions_of_tests(root)
    assert len(functions) > 50
    idle = [where for where, function in functions if not asserts(function)]
    assert not idle, "\n".join(idle)


def test_the_rule_tells_an_idle_test_from_one_that_asserts() -> None:
    idle, busy = ast.parse("def test_a():\n    x = 1\ndef test_b():\n    torch.testing.assert_close(1, 1)").body
    assert isinstance(idle, ast.FunctionDef)
    assert isinstance(busy, ast.FunctionDef)
    assert not asserts(idle)
    assert asserts(busy)
