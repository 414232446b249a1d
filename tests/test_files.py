"""Files are whole or absent."""

import errno
import os
import subprocess

import pytest
from safetensors import SafetensorError

from spokeshave.errors import FileError
from spokeshave.files import atomic_path, atomic_write, file_error, require_writable


def test_content_is_written_and_no_temporary_stays(tmp_path):
    path = tmp_path / "new" / "file.txt"
    atomic_write(path, "grün")
    assert path.read_bytes() == "grün".encode()
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_a_failure_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    atomic_write(path, b"old")

    def interrupted():
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_what_a_killed_process_left_is_removed_and_a_living_ones_is_not(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    (tmp_path / f".file.{dead.pid}.tmp").write_text("half")
    living = tmp_path / f".file.{os.getppid()}.tmp"
    living.write_text("half")
    atomic_write(tmp_path / "file", "whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["file", living.name])


def test_the_error_says_what_where_and_what_to_do(tmp_path):
    assert "free some space" in str(file_error(tmp_path, "writing", OSError(errno.ENOSPC, "No space left on device")))
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match=r"writing .*inner failed"):
        atomic_write(tmp_path / "file" / "inner", "x")


def test_what_is_no_file_is_refused_and_stays(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, says in ((pipe, "a device or a pipe"), (tmp_path, "is a folder: name a file")):
        with pytest.raises(FileError, match=says):
            atomic_write(path, "x")
    assert pipe.is_fifo() and [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_link_leads_to_the_file_that_is_written(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "file")
    atomic_write(tmp_path / "link", "whole")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "elsewhere" / "file").read_text() == "whole"


def test_the_number_that_safetensors_hides_is_found(tmp_path):
    with pytest.raises(FileError, match="the disk is full: free some space"), atomic_path(tmp_path / "file"):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(FileError, match="failed: of another kind"), atomic_path(tmp_path / "file"):
        raise SafetensorError("of another kind")


def test_a_folder_that_cannot_be_written_to_is_refused_early(tmp_path):
    require_writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new").rglob("*")) == [tmp_path / "new" / "folder"]
    (tmp_path / "file").write_text("here already")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(FileError, match=f"writing to {folder} failed: .*choose another path"):
            require_writable(folder)


def test_a_read_only_file_system_is_noticed_early(tmp_path, monkeypatch):
    def refuse(dir):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(FileError, match="read-only: choose another folder"):
        require_writable(tmp_path)
