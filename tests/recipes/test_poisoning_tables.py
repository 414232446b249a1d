"""Tables of several seeds as a page shows them, and the curves that are drawn of them."""

import pytest

from spokeshave.recipes.poisoning_tables import hiding_charts, shown


def test_tables_are_means_with_deviations() -> None:
    tables = [{"a": {"x_share": 0.5, "area": 0.9}, "b": {"x_share": 0.1, "area": 1.0}} for _ in range(2)]
    tables[1]["a"] = {"x_share": 0.7, "area": 0.8}
    assert shown(tables, "row") == [
        {"row": "a", "x": "60.0 ± 14.1 %", "area": "0.8500 ± 0.0707"},
        {"row": "b", "x": "10.0 ± 0.0 %", "area": "1.0000 ± 0.0000"},
    ]
    assert shown(tables[:1], "row")[1] == {"row": "b", "x": "10.0 %", "area": "1.0000"}


def test_curves_join_the_lambdas_of_an_attacker() -> None:
    def numbers(found: float, accuracy: float) -> dict[str, float]:
        return {"accuracy_share": accuracy, "loss_caught_share": found, "both_caught_share": found / 2}

    tables = []
    for apart in (0.0, 0.2):
        direct = {"direct, lambda 0": numbers(1.0, 0.2 + apart), "direct, lambda 10": numbers(0.5, 0.9)}
        tables.append({**direct, "other, lambda 0": numbers(0.4, 0.3)})
    loss, both = hiding_charts(tables)
    assert [curve.label for curve in loss.curves] == ["direct", "other"]
    assert loss.curves[0].xs == [0.5, 1.0] and loss.curves[0].ys == pytest.approx([0.9, 0.3])
    assert both.curves[0].xs == [0.25, 0.5] and hiding_charts([]) == []
