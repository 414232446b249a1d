import signal
import subprocess
import sys
from pathlib import Path

import network_namespaces
import pytest
from network_namespaces import (
    INTERFACE,
    NetworkRefused,
    Traffic,
    bits_per_second,
    burst_bytes,
    loopback,
    parse_traffic,
    remove_leftovers,
    shaped_network,
    traffic,
    why_not,
)

COUNTERS = """Inter-|   Receive                            |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo:    1000   10    0    0    0     0          0         0  2000   20    0    0    0     0       0          0
  net0:123456789  77    1    2    3     4          5         6  9876   55    0    0    0     0       0          0
"""
HOLDING = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started the tests with it ignored
from network_namespaces import shaped_network
with shaped_network(1, "100mbit") as hosts:
    print(hosts[0].namespace, flush=True)
    time.sleep(100)
"""
RECEIVE = """
import socket, sys
with socket.create_server((sys.argv[1], 5000)) as server:
    print("ready", flush=True)
    connection, _ = server.accept()
    left = int(sys.argv[2])
    while left:
        left -= len(connection.recv(1 << 16))
    connection.sendall(b"!")
"""
SEND = """
import socket, sys, time
began = time.perf_counter()
with socket.create_connection((sys.argv[1], 5000)) as connection:
    connection.sendall(bytes(int(sys.argv[2])))
    assert connection.recv(1) == b"!"
print(time.perf_counter() - began)
"""


def existing() -> set[str]:
    folder = Path("/run/netns")
    return {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()


@pytest.fixture(scope="module")
def _namespaces() -> None:
    """A test that asks for it is skipped, by name, where there can be none."""
    reason = why_not()
    if reason:
        pytest.skip(reason)


def holding() -> tuple[subprocess.Popen[str], str]:
    """A process that holds a network, and the name of its host's namespace."""
    folder = str(Path(network_namespaces.__file__).parent)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING], stdout=subprocess.PIPE, text=True, cwd=folder, env={"PYTHONPATH": folder}
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_counters_are_read_by_column() -> None:
    assert parse_traffic(COUNTERS, "lo") == Traffic(1000, 10, 2000, 20)
    assert parse_traffic(COUNTERS, "net0") == Traffic(123456789, 77, 9876, 55)
    assert Traffic(5, 4, 3000, 2) - Traffic(1, 2, 100, 1) == Traffic(4, 2, 2900, 1)
    assert Traffic(0, 0, 1514 + 66, 2).sent_payload == 1448  # a full packet and an acknowledgement
    for name in ("eth0", "face", "net"):
        with pytest.raises(ValueError, match=name):
            parse_traffic(COUNTERS, name)


def test_rates_and_what_goes_past_them() -> None:
    assert [bits_per_second(rate) for rate in ("64kbit", "100mbit", "1gbit")] == [64_000, 100_000_000, 1_000_000_000]
    assert burst_bytes("10gbit") == 10**10 // 8 // 500
    for wrong in ("100", "fast", "0mbit", "-1mbit", "1gbit; rm", "1.5gbit"):
        with pytest.raises(ValueError, match="100mbit"):
            bits_per_second(wrong)
    with pytest.raises(ValueError, match="250 hosts"), shaped_network(0, None):
        pass


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_namespaces.os, "geteuid", lambda: 0)
    monkeypatch.setattr(network_namespaces.shutil, "which", lambda name, path=None: None)
    assert "install iproute2" in why_not()
    monkeypatch.setattr(network_namespaces.os, "geteuid", lambda: 1000)
    assert "root" in why_not()
    assert [host.command() for host in loopback(2)] == [[], []]


@pytest.mark.usefixtures("_namespaces")
def test_hosts_exchange_what_the_rate_lets_through_and_counters_see_it() -> None:
    count, rate = 1_000_000, "20mbit"
    with shaped_network(2, rate) as (receiver, sender):
        server = subprocess.Popen(
            [*receiver.command(), sys.executable, "-c", RECEIVE, receiver.address, str(count)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert server.stdout is not None and server.stdout.readline() == "ready\n"
        before = traffic(server.pid, INTERFACE)
        client = [*sender.command(), sys.executable, "-c", SEND, receiver.address, str(count)]
        took_s = float(subprocess.run(client, capture_output=True, text=True, check=True).stdout)
        after = subprocess.run(
            [*receiver.command(), "cat", "/proc/net/dev"], capture_output=True, text=True, check=True
        )
        server.communicate()
    gone = parse_traffic(after.stdout, INTERFACE) - before
    assert count < gone.received_bytes - 66 * gone.received_packets + 1000 < 1.05 * count
    # No bound from above: that would be a matter of how busy the machine is.
    assert took_s > 8 * (count - 2 * burst_bytes(rate)) / bits_per_second(rate)


@pytest.mark.usefixtures("_namespaces")
def test_namespaces_go_with_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    before = existing()
    with pytest.raises(ZeroDivisionError), shaped_network(2, None):
        assert len(existing() - before) == 3
        raise ZeroDivisionError
    assert existing() == before
    monkeypatch.setattr(network_namespaces, "_limit", lambda *_: (_ for _ in ()).throw(NetworkRefused("half way")))
    with pytest.raises(NetworkRefused, match="half way"), shaped_network(2, "1gbit"):
        pass
    assert existing() == before
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.usefixtures("_namespaces")
def test_a_terminated_run_cleans_up_and_a_killed_one_is_cleaned_up_after() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        process, name = holding()
        assert name in existing()
        process.send_signal(number)
        process.communicate(timeout=60)
        assert process.returncode != 0 and name not in existing()
    process, name = holding()
    process.kill()
    process.communicate()
    assert name in existing()
    with shaped_network(1, None) as (host,):  # already removes them
        assert host.namespace in existing() and name not in existing()
        assert remove_leftovers() == []
    assert not {entry for entry in existing() if entry.startswith(name.rpartition("-")[0])}, "its switch neither"
