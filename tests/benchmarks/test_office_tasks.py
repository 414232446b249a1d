"""Every task and network has a run, and a finished one is not run again."""

import json
from pathlib import Path

import pytest
from office_tasks import TASKS, Options, main

from spokeshave.errors import SpokeshaveError
from spokeshave.recipes.adaptation import Row
from spokeshave.recipes.adaptation_forms import Form, strength_of
from spokeshave.recipes.adaptation_rows import NetworkName
from spokeshave.run_output import RECORD_FILE


def test_there_are_twelve_tasks() -> None:
    assert len(TASKS) == 12 and Row.AMAZON_WEBCAM in TASKS and Row.MNIST_USPS not in TASKS


def test_finished_tasks_are_left_and_others_are_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks, record = (Row.DSLR_WEBCAM, Row.WEBCAM_DSLR), tmp_path / "adaptation-dslr-webcam-squeezenet" / RECORD_FILE
    record.parent.mkdir()
    record.write_text("{}")
    with pytest.raises(SpokeshaveError, match="nowhere"):  # of the other one, whose images are looked for
        main(Options((NetworkName.SQUEEZENET,), tasks, run_dir=tmp_path, data_dir=tmp_path / "nowhere"))
    assert capsys.readouterr().out.replace("\n", "").count("finished before") == 1 and record.read_text() == "{}"


def test_a_form_of_another_strength_is_not_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = tmp_path / "adaptation-dslr-webcam-compact-sparse" / RECORD_FILE
    record.parent.mkdir()
    options = Options((NetworkName.COMPACT,), (Row.DSLR_WEBCAM,), Form.SPARSE, run_dir=tmp_path,
                      data_dir=tmp_path / "nowhere")  # fmt: skip
    record.write_text('{"config": {"by": 0.123}}')
    with pytest.raises(SpokeshaveError, match="nowhere"):
        main(options)
    record.write_text(json.dumps({"config": {"by": strength_of(Form.SPARSE)}}))
    main(options)
    assert "finished before" in capsys.readouterr().out


def test_a_finished_task_without_its_row_is_gone_through_again(tmp_path: Path) -> None:
    record = tmp_path / "adaptation-dslr-webcam-squeezenet" / RECORD_FILE
    record.parent.mkdir()
    record.write_text('{"row": "dslr-webcam-squeezenet"}')
    ledger = tmp_path / "results"
    options = Options((NetworkName.SQUEEZENET,), (Row.DSLR_WEBCAM,), run_dir=tmp_path, ledger=ledger,
                      data_dir=tmp_path / "nowhere")  # fmt: skip
    with pytest.raises(SpokeshaveError, match="nowhere"):
        main(options)
    (ledger / "adaptation").mkdir(parents=True)
    (ledger / "adaptation" / "dslr-webcam-squeezenet.json").write_text("{}")
    main(options)
