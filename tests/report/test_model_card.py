"""A card names every file with its errors, how to load it, and what it must not be taken for."""

from arms_cases import made_up
from spokeshave.report.model_card import model_card


def test_a_card() -> None:
    record = made_up()
    card = model_card(record, "\nload(FILE)\n", {"Input": "digits"}, ["Not for cheques."], ("digits",))
    lines = card.splitlines()
    assert lines[:5] == [
        "---", "library_name: spokeshave", 'tags: ["digits"]', "metrics: [accuracy]", "---",
    ]  # fmt: skip
    for arm in record.arms:
        errors = ", ".join(f"{100 * error:.2f}" for error in arm.errors)
        seeds = ", ".join(map(str, record.seeds))
        assert f"| `{arm.name}.safetensors` | {arm.label} | {errors} ({seeds}) |" in lines
    assert lines[lines.index("```python") + 1] == "load(FILE)"
    assert "- Input: digits" in lines and "- Not for cheques." in lines
    assert f"- Made by: `{record.command or 'a script'}`" in lines
