"""Network namespaces: machines of one computer, on a switch whose ports have a rate, for as long as a block runs.

    with shaped_network(2, "100mbit") as hosts:
        subprocess.Popen([*hosts[0].command(), "python", ...])      # its interface is hosts[0].interface

Each host is a namespace with one veth into a bridge; tbf limits both directions, as a full duplex switch port does.
Needs Linux, root (CAP_NET_ADMIN) and iproute2; `why_not` says in a sentence what is missing. Everything lies in
namespaces of its own, so nothing of the machine's own network is touched; they are removed at the end, on errors,
Ctrl-C and SIGTERM too, and what a killed run left behind is removed by the next.

Traps:
- tbf lets a burst through at full speed, and saves up for it while a step computes. A burst of 256 KB would carry half
  of a step's ternary gradients past a 100 Mbit/s limit: here it is 2 ms of the rate, at least 32 KB.
- Packets of the kernel's offloads (64 KB) above the burst are split by tbf, which costs time of a core above 1 Gbit/s.
- tbf counts Ethernet frames: of a rate R, one TCP stream gets 0.957 R of payload at most (1448 of 1514 bytes). Measured
  on two cores, not idle: 94 of 100 Mbit/s, but 700 to 850 of 1000, with any burst and with htb too; unlimited 4000.
- TCP's congestion control (written into results) made no difference to that: bbr, reno. netem (delay, loss) is
  missing in many kernels, so latency is not emulated.
- Counters count packets as the port sees them: split ones (below 1 Gbit/s here) with a header for each 1448 bytes, as a
  wire would, others with one for up to 64 KB. Acknowledgements count too. What is to be compared with a formula is the
  payload: bytes less 66 a packet. It still has what was sent again.
- IPv6 and multicast are off: their chatter would be counted.
"""

import os
import re
import secrets
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

PREFIX = "spokeshave"
INTERFACE = "net0"
BURST_S = 2e-3
LEAST_BURST_BYTES = 32 * 1024
QUEUE_MS = 50
HEADER_BYTES = 14 + 20 + 32
"""Of a packet: Ethernet, IPv4, TCP with time stamps. Acknowledgements are nothing else."""
RATE = re.compile(r"(?P<number>[1-9]\d*)(?P<unit>kbit|mbit|gbit)")
BITS = {"kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
_OWNER = re.compile(rf"{PREFIX}-(?P<pid>\d+)-(?P<start>\d+)-")


class NetworkRefused(RuntimeError):
    """The system does not give this process such a network; the message says what is missing."""


@dataclass(frozen=True)
class Host:
    """One machine.

    Attributes:
        interface: name of its network interface.
        address: IPv4.
        namespace: None for this machine itself, over loopback.
    """

    interface: str
    address: str
    namespace: str | None = None

    def command(self) -> list[str]:
        """What to put before a command that is to run there."""
        return [] if self.namespace is None else [_tool("ip"), "netns", "exec", self.namespace]


@dataclass(frozen=True)
class Traffic:
    """What went through an interface since it exists, headers included."""

    received_bytes: int
    received_packets: int
    sent_bytes: int
    sent_packets: int

    def __sub__(self, earlier: "Traffic") -> "Traffic":
        return Traffic(*(late - early for late, early in zip(astuple(self), astuple(earlier), strict=True)))

    @property
    def sent_payload(self) -> int:
        """Bytes sent without the headers of Ethernet, IP and TCP."""
        return self.sent_bytes - HEADER_BYTES * self.sent_packets


def bits_per_second(rate: str) -> int:
    """Of a rate as `tc` writes it.

    Raises:
        ValueError: for anything else.

    Example:
        >>> bits_per_second("100mbit")
        100000000
    """
    found = RATE.fullmatch(rate)
    if found is None:
        raise ValueError(f"expected a rate such as 100mbit or 1gbit, got {rate!r}")
    return int(found["number"]) * BITS[found["unit"]]


def burst_bytes(rate: str) -> int:
    """What a port lets through at full speed after a pause.

    Example:
        >>> burst_bytes("100mbit"), burst_bytes("1gbit")
        (32768, 250000)
    """
    return max(LEAST_BURST_BYTES, int(bits_per_second(rate) / 8 * BURST_S))


def parse_traffic(text: str, interface: str) -> Traffic:
    """Read the counters of an interface from the text of /proc/net/dev.

    Raises:
        ValueError: where the interface is not in it.
    """
    for line in text.splitlines():
        name, colon, counters = line.partition(":")
        if colon and name.strip() == interface:
            numbers = counters.split()
            return Traffic(int(numbers[0]), int(numbers[1]), int(numbers[8]), int(numbers[9]))
    raise ValueError(f"expected an interface {interface} in /proc/net/dev, got: {text.strip()}")


def traffic(process: int, interface: str) -> Traffic:
    """Counters of an interface, in the namespace that a process lives in."""
    return parse_traffic(Path(f"/proc/{process}/net/dev").read_text(), interface)


def why_not() -> str:
    """Why this system cannot have such a network, in a sentence; '' where it can: one is made and removed."""
    try:
        with shaped_network(1, "100mbit"):
            return ""
    except NetworkRefused as refused:
        return str(refused)


def loopback(hosts: int) -> list[Host]:
    """The machine itself, as many times as hosts are wanted: nothing is shaped, and its counters count everybody."""
    return [Host("lo", "127.0.0.1") for _ in range(hosts)]


@contextmanager
def shaped_network(hosts: int, rate: str | None) -> Iterator[list[Host]]:
    """Hosts on a switch, for as long as the block runs.

    Args:
        hosts: how many, 1..250.
        rate: of each port in each direction, as `tc` writes it; None does not limit it.

    Raises:
        NetworkRefused: where the system does not allow it.
        ValueError: for another number of hosts, or a rate that is none.
    """
    if not 1 <= hosts <= 250:
        raise ValueError(f"expected 1..250 hosts, got {hosts}")
    if rate is not None:
        bits_per_second(rate)
    if os.geteuid() != 0:
        raise NetworkRefused("network namespaces need root (CAP_NET_ADMIN); run as root, or in a container that has it")
    for tool in ("ip", "tc"):
        _tool(tool)
    remove_leftovers()
    run = f"{PREFIX}-{os.getpid()}-{_start_time(os.getpid())}-{secrets.token_hex(2)}"
    switch = f"{run}-switch"
    with ExitStack() as removal:
        removal.enter_context(_terminated_as_exception())
        _add_namespace(switch, removal)
        _ip(switch, "link", "add", "bridge0", "type", "bridge", "mcast_snooping", "0")
        _ip(switch, "link", "set", "bridge0", "addrgenmode", "none", "up")
        made = []
        for index in range(hosts):
            namespace, port = f"{run}-{index}", f"port{index}"
            _add_namespace(namespace, removal)
            _ip(namespace, "link", "add", INTERFACE, "type", "veth", "peer", "name", port, "netns", switch)
            _ip(namespace, "link", "set", INTERFACE, "addrgenmode", "none")
            _ip(switch, "link", "set", port, "addrgenmode", "none", "master", "bridge0")
            host = Host(INTERFACE, f"10.77.0.{index + 1}", namespace)
            _ip(namespace, "addr", "add", f"{host.address}/24", "dev", INTERFACE)
            if rate is not None:
                _limit(namespace, INTERFACE, rate)
                _limit(switch, port, rate)
            _ip(namespace, "link", "set", "lo", "up")
            _ip(switch, "link", "set", port, "up")
            _ip(namespace, "link", "set", INTERFACE, "up")
            made.append(host)
        yield made


def remove_leftovers() -> list[str]:
    """Remove the namespaces of runs that no longer live; give their names."""
    removed = []
    for name in _namespaces():
        owner = _OWNER.match(name)
        if owner and str(_start_time(int(owner["pid"]))) != owner["start"]:
            _remove_namespace(name)
            removed.append(name)
    return removed


def congestion_control() -> str | None:
    """Of TCP in this kernel; None where it does not say."""
    try:
        return Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    except OSError:
        return None


def _namespaces() -> list[str]:
    folder = Path("/run/netns")
    return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []


def _add_namespace(name: str, removal: ExitStack) -> None:
    removal.callback(_remove_namespace, name)
    _run([_tool("ip"), "netns", "add", name])


def _remove_namespace(name: str) -> None:
    """Remove one, if it is there; a second Ctrl-C must not stop it half way."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
    try:
        if name in _namespaces():
            _run([_tool("ip"), "netns", "delete", name])
    finally:
        if main:
            signal.signal(signal.SIGINT, before)


def _limit(namespace: str, interface: str, rate: str) -> None:
    burst = str(burst_bytes(rate))
    shape = ["tbf", "rate", rate, "burst", burst, "latency", f"{QUEUE_MS}ms"]
    _run([_tool("tc"), "-n", namespace, "qdisc", "add", "dev", interface, "root", *shape])


def _ip(namespace: str, *arguments: str) -> None:
    _run([_tool("ip"), "-n", namespace, *arguments])


def _run(command: list[str]) -> None:
    # In a session of its own: Ctrl-C is for this process, which then still has to remove what the command made.
    done = subprocess.run(command, capture_output=True, text=True, check=False, start_new_session=True)
    if done.returncode:
        raise NetworkRefused(f"{' '.join(command)}: {done.stderr.strip()}")


def _tool(name: str) -> str:
    """The path of a command; administrators' folders are not on everybody's PATH."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        raise NetworkRefused(f"network namespaces need the command {name}; install iproute2")
    return found


def _start_time(process: int) -> int | None:
    """When a process began, in the kernel's ticks: with the process number, a name that is not given twice."""
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None


@contextmanager
def _terminated_as_exception() -> Iterator[None]:
    """SIGTERM and SIGHUP as SystemExit, so that what is to be removed is removed."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
