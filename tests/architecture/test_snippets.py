"""The Python in the README and the documentation parses, and what it imports and names of Spokeshave is there."""

import ast
import importlib
import re

import spokeshave

BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def snippets(documents: dict[str, str]) -> list[tuple[str, ast.Module]]:
    found = [(name, ast.parse(block)) for name, text in documents.items() for block in BLOCK.findall(text)]
    assert len(found) >= 4
    return found


def test_imports_of_the_snippets_work(documents: dict[str, str]) -> None:
    imported = 0
    for name, tree in snippets(documents):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("spokeshave"):
                module = importlib.import_module(node.module or "")
                assert all(hasattr(module, alias.name) for alias in node.names), f"{name}: {ast.unparse(node)}"
                imported += 1
    assert imported


def test_public_names_in_snippets_and_text_exist(documents: dict[str, str]) -> None:
    named = {(name, match) for name, text in documents.items() for match in re.findall(r"\bss\.([A-Za-z_]\w*)", text)}
    assert len({match for _, match in named}) >= 8
    assert not [pair for pair in named if pair[1] not in spokeshave.__all__]


def test_commands_in_the_documents_name_real_subcommands_and_recipes(documents: dict[str, str]) -> None:
    from spokeshave.cli.list_recipes import load_recipe
    from spokeshave.cli.main import SUBCOMMANDS

    lines = [line for text in documents.values() for line in re.findall(r"^spokeshave .*$", text, re.MULTILINE)]
    assert len(lines) >= 8
    for line in lines:
        words = line.split()
        assert words[1] in SUBCOMMANDS, line
        if words[1] == "run" and words[2] != "RECIPE":
            assert load_recipe(words[2])
