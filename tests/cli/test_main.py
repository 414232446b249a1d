import signal
import subprocess
import sys

import pytest

from spokeshave.cli import main as command_line
from spokeshave.cli.main import SUBCOMMANDS, main
from spokeshave.errors import DataError

ENTRY = "import sys; from spokeshave.cli.main import main; sys.exit(main())"


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(_: list[str]) -> int:
        raise error

    monkeypatch.setattr(command_line, "_dispatch", fail)


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_subcommand_with_a_sentence(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in SUBCOMMANDS:
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        assert len(line.split()) > 4


def test_help_does_not_load_torch() -> None:
    script = "import sys; from spokeshave.cli.main import main; main(['--help']); print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "False"


def test_every_subcommand_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name in SUBCOMMANDS:
        try:
            code = main([name, "--help"])
        except SystemExit as leaving:  # tyro leaves by itself after its help
            code = leaving.code
        assert code == 0
        assert "usage" in capsys.readouterr().out.lower()


def test_unknown_subcommand_suggests_the_close_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mesure"]) == 2
    assert "did you mean measure?" in capsys.readouterr().err


def test_version_is_the_installed_one(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    assert main(["--version"]) == 0
    assert capsys.readouterr().out.split() == ["spokeshave", version("spokeshave")]


def test_expected_error_is_one_message_without_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, DataError("train-images: expected 47040016 bytes, got 12; [remove] it"))
    assert main(["run"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "error: train-images: expected 47040016 bytes, got 12; [remove] it\n"


def test_debug_shows_the_traceback_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    failing(monkeypatch, DataError("damaged"))
    assert main(["run", "ssl", "--debug"]) == 2
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_unexpected_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, ZeroDivisionError("a mistake of ours"))
    with pytest.raises(ZeroDivisionError):
        main(["run"])


def test_interrupt_tells_the_command_that_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, KeyboardInterrupt())
    assert main(["run", "ssl", "--run-dir", "my runs/a"]) == 130
    assert "spokeshave run ssl --run-dir 'my runs/a' --resume" in capsys.readouterr().err
    assert main(["run", "ssl", "--resume"]) == 130
    assert capsys.readouterr().err.count("--resume") == 1
    assert main(["doctor"]) == 130
    assert "--resume" not in capsys.readouterr().err


def test_reader_that_leaves_early_is_no_error() -> None:
    words = [sys.executable, "-c", ENTRY, "where", "measure", "--limit", "50"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        _, complaint = process.communicate(timeout=60)
    assert process.returncode in (1, 141)  # 1 where rich met the closed pipe first
    assert complaint == ""


def test_interrupt_signal_ends_with_130() -> None:
    busy = "lambda words: (print('ready', flush=True), time.sleep(60))"
    # A shell's background job, a CI runner among them, starts its children with SIGINT ignored, and they inherit it.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    script = f"{heard}\nimport spokeshave.cli.main as m, time; m._dispatch = {busy}\n{ENTRY}"
    words = [sys.executable, "-c", script, "run", "x"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in complaint
