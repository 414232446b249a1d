"""Downloads, from a server of the test's own: whole or absent, checked, and clear about what failed."""

import gzip
import hashlib
import io
import pickle
import socket
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from spokeshave.data import DATASETS, load
from spokeshave.data.fetch import RichProgressBar, fetch, unpack
from spokeshave.data.sources import DatasetName, Remote, Source
from spokeshave.errors import DataError, FileError


class QuietHandler(SimpleHTTPRequestHandler):
    requested: list[str]

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""

    def do_GET(self) -> None:
        self.requested.append(self.path)
        super().do_GET()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address on this machine that serves it."""
    folder = tmp_path / "served"
    folder.mkdir()
    QuietHandler.requested = []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def closed_port() -> int:
    """A port of this machine on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def small_mnist(folder: Path, mnist_like: Path, url: str) -> Source:
    """MNIST's source, pointed at a server that has the small one."""
    remotes = []
    for remote in DATASETS[DatasetName.MNIST].remotes:
        file = mnist_like / "MNIST" / "raw" / remote.name
        content = file.read_bytes() if file.exists() else gzip.compress(file.with_suffix("").read_bytes())
        (folder / remote.name).write_bytes(content)
        remotes.append(Remote(remote.name, (f"{url}/{remote.name}",), md5(content)))
    return replace(DATASETS[DatasetName.MNIST], remotes=tuple(remotes))


def small_cifar(folder: Path, url: str, member: str | None = None) -> Source:
    """CIFAR-10's source, pointed at a server with a small archive; `member` adds a file of that name to it."""
    batch = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [3, 4]}
    files = {f"data_batch_{n}": batch for n in range(1, 6)} | {"test_batch": batch}
    meta = {b"label_names": [b"x"] * 10}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in (files | {"batches.meta": meta}).items():
            data = pickle.dumps(content, protocol=2)
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        if member:
            info = tarfile.TarInfo(member)
            info.size = 4
            tar.addfile(info, io.BytesIO(b"evil"))
    (folder / "cifar-10-python.tar.gz").write_bytes(buffer.getvalue())
    source = DATASETS[DatasetName.CIFAR10]
    name = source.remotes[0].name
    return replace(source, remotes=(Remote(name, (f"{url}/{name}",), md5(buffer.getvalue()), "cifar-10-batches-py"),))


def leftovers(root: Path) -> list[str]:
    return sorted(f.name for f in (root / ".downloads").rglob("*") if f.is_file() and f.suffix != ".lock")


def test_plain_files_arrive_and_are_loaded(
    served: tuple[Path, str], mnist_like: Path, no_other_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DATASETS, DatasetName.MNIST, small_mnist(served[0], mnist_like, served[1]))
    splits = load("mnist")
    assert splits.train.labels.tolist() == list(range(8))
    assert len(list((no_other_data / "MNIST" / "raw").iterdir())) == 4
    assert not leftovers(no_other_data)


def test_an_archive_arrives_and_is_loaded_from_the_folder_given(
    served: tuple[Path, str], no_other_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DATASETS, DatasetName.CIFAR10, small_cifar(*served))
    chosen = tmp_path / "mine"
    chosen.mkdir()
    assert load("cifar10", chosen).test.labels.tolist() == [3, 4]
    assert (chosen / "cifar-10-batches-py" / "data_batch_1").is_file()
    assert not leftovers(chosen)
    assert not no_other_data.exists()


def test_a_second_call_downloads_nothing(
    served: tuple[Path, str], mnist_like: Path, no_other_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DATASETS, DatasetName.MNIST, small_mnist(served[0], mnist_like, served[1]))
    load("mnist")
    for file in served[0].iterdir():
        file.unlink()
    assert len(load("mnist").test) == 4
    assert no_other_data.exists()


def test_a_wrong_checksum_is_refused_and_leaves_no_set(
    served: tuple[Path, str], mnist_like: Path, no_other_data: Path
) -> None:
    source = small_mnist(served[0], mnist_like, served[1])
    (served[0] / "t10k-labels-idx1-ubyte.gz").write_bytes(b"tampered")
    with pytest.raises(
        DataError, match=r"(?s)MNIST: t10k-labels-idx1-ubyte\.gz could not .*127\.0\.0\.1.*MD5.*--data-dir"
    ):
        fetch(source)
    assert not (no_other_data / "MNIST").exists()


def test_a_download_goes_on_with_what_was_complete(
    served: tuple[Path, str], mnist_like: Path, no_other_data: Path
) -> None:
    source = small_mnist(served[0], mnist_like, served[1])
    last = served[0] / source.remotes[-1].name
    content = last.read_bytes()
    last.unlink()
    with pytest.raises(DataError, match="404"):
        fetch(source)
    for remote in source.remotes[:-1]:
        (served[0] / remote.name).unlink()
    last.write_bytes(content)
    assert fetch(source) == no_other_data / "MNIST" / "raw"


def test_a_mirror_is_tried_after_the_official_address(
    served: tuple[Path, str], mnist_like: Path, no_other_data: Path, closed_port: int
) -> None:
    source = small_mnist(served[0], mnist_like, served[1])
    remotes = tuple(replace(r, urls=(f"http://127.0.0.1:{closed_port}/{r.name}", *r.urls)) for r in source.remotes)
    assert fetch(replace(source, remotes=remotes)).is_dir()
    assert no_other_data.exists()


def test_offline_says_which_address_and_how_to_use_a_copy(no_other_data: Path, closed_port: int) -> None:
    url = f"http://127.0.0.1:{closed_port}/cifar-10-python.tar.gz"
    source = DATASETS[DatasetName.CIFAR10]
    source = replace(source, remotes=(replace(source.remotes[0], urls=(url,)),))
    with pytest.raises(DataError) as caught:
        fetch(source)
    message = str(caught.value)
    for part in (
        "CIFAR-10",
        url,
        "ConnectionError",
        "--data-dir",
        "SPOKESHAVE_DATA",
        "cifar-10-batches-py/ with data_batch_1",
    ):
        assert part in message
    assert not (no_other_data / "cifar-10-batches-py").exists()


def test_switched_off_says_where_it_looked(no_other_data: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"SVHN is not in .*cache, and was not downloaded .*svhn/ with train_32x32\.mat"
    ):
        load("svhn", tmp_path, download=False)
    assert not no_other_data.exists()


@pytest.mark.parametrize("allowed", [True, False])
def test_what_is_not_downloaded_says_from_where_to_get_it(no_other_data: Path, tmp_path: Path, allowed: bool) -> None:
    source = replace(DATASETS[DatasetName.SVHN], remotes=(), page="https://example.org/by-hand")
    said = (
        rf"SVHN is not in {tmp_path}, .*cache, and is not downloaded.*https://example\.org/by-hand .*svhn; .*--data-dir"
    )
    with pytest.raises(DataError, match=said):
        fetch(source, tmp_path, allowed)
    assert not list(tmp_path.iterdir())
    assert not no_other_data.exists()


@pytest.mark.parametrize("member", ["../escaped", "cifar-10-batches-py/../../escaped", "/tmp/spokeshave-escaped"])
def test_an_archive_that_climbs_out_is_refused(
    served: tuple[Path, str], no_other_data: Path, tmp_path: Path, member: str
) -> None:
    source = small_cifar(*served, member=member)
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz was refused.*escaped"):
        fetch(source)
    assert not (no_other_data / "cifar-10-batches-py").exists()
    assert not [f for f in tmp_path.rglob("escaped") if f.is_file()]
    assert not Path("/tmp/spokeshave-escaped").exists()


def test_a_link_out_of_the_archive_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = tarfile.SYMTYPE, "../../outside"
        tar.addfile(info)
    with pytest.raises(DataError, match="was refused"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out")


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo("noise")
        info.size = 50_000
        tar.addfile(info, io.BytesIO(np.random.default_rng(0).bytes(50_000)))
    (tmp_path / "a.tar.gz").write_bytes((tmp_path / "a.tar.gz").read_bytes()[:20_000])
    with pytest.raises(DataError, match=r"a\.tar\.gz cannot be unpacked"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out")


def test_a_folder_that_cannot_be_made_is_said(served: tuple[Path, str], mnist_like: Path, tmp_path: Path) -> None:
    source = small_mnist(served[0], mnist_like, served[1])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / ".downloads").write_text("a file where a folder must be")
    with pytest.raises(FileError, match="downloading MNIST to"):
        fetch(source, tmp_path / "mine")


def test_those_who_want_it_at_once_wait_for_the_first(served: tuple[Path, str], tmp_path: Path) -> None:
    """Each thread opens the lock anew, and so stands for a process."""
    source = small_cifar(*served)
    folder = tmp_path / "shared"
    folder.mkdir()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: fetch(source, folder), range(4)))
    assert found == [folder / "cifar-10-batches-py"] * 4
    assert QuietHandler.requested.count("/cifar-10-python.tar.gz") == 1
    assert len(source.read(folder / "cifar-10-batches-py").train) == 10


def test_the_progress_bar_counts_to_its_total(capsys: pytest.CaptureFixture[str]) -> None:
    bar = RichProgressBar("file.gz")
    bar.total = 2000
    bar.update(500)
    bar.reset()
    bar.update(2000)
    bar.close()
    assert bar.total == 2000
    output = capsys.readouterr()
    assert "file.gz" in output.err
    assert output.out == ""
