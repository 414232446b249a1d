"""The page of an exchange: all of it is there, nothing is loaded, hostile names are text."""

import re

from exchange_cases import history, made_up
from html_page import Page
from spokeshave.report.exchange_page import code_figure, curves, render_exchange_page, write_exchange_page

HOSTILE = '<script>alert("x")</script>&'


def words_of(text: str) -> str:
    return Page(text).text.replace("\N{NO-BREAK SPACE}", " ").replace("\N{NARROW NO-BREAK SPACE}", " ")


def test_everything_is_on_the_page(tmp_path):
    record = made_up()
    write_exchange_page(record, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    shown = words_of(text)
    wanted = ["On mnist, test error is 1.10 ± 0.10 %", "1.30 ± 0.10 %", "+0.20 ± 0.10 points", "16.1× fewer", "0.80 %"]
    wanted += ["conv1.weight", "70.0 %", "84.0 %", "1.20 %", "+0.30", "abc1234", "some CPU", "training.steps", "300"]
    wanted += [record.command or "", "float", "ternary"]
    assert [words for words in wanted if words not in shown] == []
    headings = [attributes.get("id") for tag, attributes in Page(text).tags if tag == "h2"]
    assert headings == ["accuracy", "training", "codes", "made"]


def test_nothing_is_loaded_and_everything_has_a_name():
    text = render_exchange_page(made_up())
    page = Page(text)
    assert not re.search(r"https?:|url\(|@import", text)
    assert not [tag for tag, _ in page.tags if tag in ("script", "iframe", "object", "embed", "form", "img")]
    assert all(a.get("aria-label") for tag, a in page.tags if tag == "svg" or a.get("role") == "region")
    assert all(a.get("scope") for tag, a in page.tags if tag == "th")


def test_hostile_names_are_text():
    rows = {"float": history(9, 0.9), "ternary": history(9, 0.9, {HOSTILE: 0.5})}
    record = made_up(title=HOSTILE, data=HOSTILE, command=HOSTILE, zero_codes={HOSTILE: 0.5}, history=rows)
    page = Page(render_exchange_page(record))
    assert "script" not in {tag for tag, _ in page.tags} and page.text.count(HOSTILE) >= 5


def test_a_run_without_codes_history_or_published_row_has_a_page():
    record = made_up(zero_codes={}, history={}, paper=None, data=None, commit=None, command=None, seeds=[4])
    bare = made_up(**vars(record) | {name: [0.1] for name in vars(record) if name.endswith("errors")})
    page = Page(render_exchange_page(bare))
    assert [a.get("id") for tag, a in page.tags if tag == "h2"] == ["accuracy", "made"]
    assert "spokeshave run terngrad --row lenet-2" in page.text and "one seed" in page.text


def test_figures_hold_both_networks_and_every_parameter():
    accuracy, loss = curves(made_up())
    assert [entry.label for entry in accuracy.legend] == ["float", "ternary"] and loss.title == "Training loss"
    codes = code_figure(made_up())
    assert codes is not None and [entry.label for entry in codes.legend] == ["conv1.weight", "ip1.weight"]
    many = {f"layer{number}": 0.5 for number in range(20)}
    figure = code_figure(made_up(history={"ternary": history(9, 0.9, many)}))
    assert figure is not None and [entry.label for entry in figure.legend] == ["layer0", "layer10", "layer19"]
    assert code_figure(made_up(history={"ternary": history(9, 0.9)})) is None
