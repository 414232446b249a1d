from importlib.metadata import version
from pathlib import Path

import pytest

from spokeshave.cli import doctor
from spokeshave.cli.main import main
from spokeshave.data import DATASETS
from spokeshave.optional import EXTRAS


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def test_doctor_names_versions_data_sets_and_optional_parts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert version("torch") in shown
    for name in [*(name.value for name in DATASETS), *EXTRAS]:
        assert name in shown


def test_missing_part_comes_with_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "available", lambda module: module != "onnx")
    assert dict(doctor.optional_rows())["onnx"] == "missing: pip install 'spokeshave[onnx]'"


def test_data_set_is_shown_where_it_lies_and_a_wrong_folder_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPOKESHAVE_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert dict(doctor.data_rows(None))["mnist"] == "not here: downloaded at first use"
    assert dict(doctor.data_rows(None))["digits"] == "embedded"
    rs130 = dict(doctor.data_rows(None))["rs130"]
    assert rs130.startswith("not here: get it from https://www.csie.ntu.edu.tw/")
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["doctor"]) == 0
    assert rs130.replace(" ", "") in "".join(capsys.readouterr().out.split())  # folded, not cut
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("SPOKESHAVE_DATA", str(tmp_path / "nowhere"))
    assert main(["doctor"]) == 0
    assert "does not exist" in capsys.readouterr().out


def test_processor_is_read_from_cpuinfo() -> None:
    name, features = doctor.cpu_model_and_features()
    assert name
    if Path("/proc/cpuinfo").is_file():
        assert features & set(doctor.VECTOR_BITS)
    assert doctor.usable_cores() >= 1
