from pathlib import Path

import pytest

from spokeshave.cli.main import main
from spokeshave.cli.where import PACKAGE, Place, all_places, map_rows, near_misses, search

IDEAS = [
    ("group lasso", "regularizers/group_lasso.py"),
    ("squeezed convolution", "rewrites/squeezed_convolution.py"),
    ("shrink", "rewrites/shrink.py"),
    ("depth", "structures/groups.py"),
    ("filter shape", "structures/groups.py"),
    ("freeze", "regularizers/freeze.py"),
    ("latency", "measure.py"),
    ("flops", "measure.py"),
    ("checkpoint", "checkpoints.py"),
    ("resume", "checkpoints.py"),
    ("lenet", "models/lenet.py"),
    ("alexnet", "models/alexnet.py"),
    ("cifar", "data/cifar.py"),
    ("ledger", "ledger.py"),
    ("ssl", "recipes/ssl.py"),
    ("proximal", "regularizers/proximal_step.py"),
    ("page", "report/page.py"),
    ("export to onnx", "export.py"),
    ("onnx", "structures/onnx_graph.py"),
]


@pytest.mark.parametrize(("word", "file"), IDEAS)
def test_idea_is_among_the_first_three(word: str, file: str) -> None:
    first = [place.file.relative_to(PACKAGE).as_posix() for place in search(word, all_places(PACKAGE))[:3]]
    assert file in first


def test_every_place_is_a_line_of_a_file() -> None:
    places = all_places(PACKAGE)
    assert len(places) > 60
    for place in places:
        assert 1 <= place.line <= max(1, len(place.file.read_text().splitlines()))


def test_answer_has_file_line_and_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["where", "group", "lasso"]) == 0
    shown = capsys.readouterr().out
    assert "regularizers/group_lasso.py:1" in shown
    assert "docs/papers/ssl.md" in shown


def test_misspelt_word_is_understood() -> None:
    places = [Place("GroupLasso: pulls", Path("a.py"), 1), Place("shrink: removes", Path("b.py"), 1)]
    assert search("group laso", places)[0].file == Path("a.py")
    assert search("shrnk", places)[0].file == Path("b.py")


def test_nothing_found_leaves_with_1_and_suggests(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["where", "zzzzqqq"]) == 1
    assert "nothing is called 'zzzzqqq'" in capsys.readouterr().err
    assert near_misses("lattency", [Place("latency: seconds", Path("a.py"), 1)]) == ["latency"]


def test_installed_package_without_the_readme_still_answers(tmp_path: Path) -> None:
    package = tmp_path / "site-packages" / "sub" / "spokeshave"
    package.mkdir(parents=True)
    (package / "rank_clipping.py").write_text('"""Rank clipping: cuts singular values."""\n')
    assert search("rank clipping", all_places(package))[0].file.name == "rank_clipping.py"


def test_rows_of_other_tables_are_no_places() -> None:
    assert map_rows("| a | b | c |\n|---|---|---|\n| `x.py` | 1 | 2 |") == []
