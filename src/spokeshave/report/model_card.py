"""The card beside trained weights: what they are, how to load them, what they were trained on, what they are good for.

Mitchell et al.: Model Cards for Model Reporting, FAT* 2019. In the form of Hugging Face's model cards.
"""

import json
from collections.abc import Mapping, Sequence

from spokeshave.report.arms_record import ArmsRecord


def model_card(
    record: ArmsRecord,
    loading: str,
    facts: Mapping[str, str],
    limits: Sequence[str],
    tags: Sequence[str] = (),
    suffix: str = ".safetensors",
) -> str:
    """Write a card, in Markdown.

    Args:
        record: of the run that trained the weights; each arm has a file of its name.
        loading: Python code that loads one of them.
        facts: what else to know: heading of a line -> text.
        limits: what the weights must not be taken for, a sentence each.
        tags: words that they are found by.
        suffix: of the files.
    """
    table = ["| weights | what was done | test error, % (seeds) |", "|---|---|---|"]
    for arm in record.arms:
        errors = ", ".join(f"{100 * error:.2f}" for error in arm.errors)
        table.append(f"| `{arm.name}{suffix}` | {arm.label} | {errors} ({', '.join(map(str, record.seeds))}) |")
    known = {
        "Data": record.data or "unknown", **facts, "Made by": f"`{record.command or 'a script'}`",
        "Commit": record.commit or "unknown",
    }  # fmt: skip
    front = ["library_name: spokeshave", "tags: " + json.dumps(list(tags)), "metrics: [accuracy]"]
    parts = [
        "---", *front, "---", "", f"# {record.title}", "", *table, "",
        *(f"- {name}: {text}" for name, text in known.items()), "",
        "## Loading", "", "```python", loading.strip(), "```", "",
        "## Limits", "", *(f"- {sentence}" for sentence in limits), "",
    ]  # fmt: skip
    return "\n".join(parts)
