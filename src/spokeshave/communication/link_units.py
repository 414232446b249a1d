"""Link units: bandwidths and latencies as people write them, 100mbit or 50us, to bit/s and seconds and back."""

import math
import re

from spokeshave.errors import InvalidArgument

_RATES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_TIMES = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
_NUMBER = r"(\d+(?:\.\d*)?|\.\d+)(?:e([+-]?\d+))?"
_BANDWIDTH = re.compile(rf"{_NUMBER}\s*([kmgt]?)(?:bit|bits|bps|bit/s|bits/s)", re.IGNORECASE)
_BYTES = re.compile(rf"{_NUMBER}\s*[kmgt]?i?(?:b|byte|bytes)(?:/s|ps)?", re.IGNORECASE)
_LATENCY = re.compile(rf"{_NUMBER}\s*({'|'.join(sorted(_TIMES, key=len, reverse=True))})", re.IGNORECASE)


def parse_bandwidth(text: str) -> float:
    """Read a bandwidth.

    Args:
        text: a number and kbit, mbit, gbit or tbit; also Mbit/s, Mbps, bit, in any case.

    Returns:
        bit/s, above 0.

    Raises:
        InvalidArgument: for anything else; bytes are refused, so that nobody is off by eight.

    Example:
        >>> parse_bandwidth("100mbit"), parse_bandwidth("2.5 Gbit/s")
        (100000000.0, 2500000000.0)
    """
    found = _BANDWIDTH.fullmatch(text.strip())
    if found is None:
        bits = ": in bits, eight of a byte" if _BYTES.fullmatch(text.strip()) else ""
        raise InvalidArgument(f"bandwidth: expected such as 100mbit, 1gbit or 2.5 Gbit/s, got {text!r}{bits}")
    rate = _number(found) * _RATES[found[3].lower()]
    if not 0 < rate < math.inf:
        raise InvalidArgument(f"bandwidth: expected more than 0 bit/s, got {text!r}")
    return rate


def parse_latency(text: str) -> float:
    """Read a latency.

    Args:
        text: a number and ns, us, ms or s.

    Returns:
        seconds, at least 0.

    Raises:
        InvalidArgument: for anything else.

    Example:
        >>> parse_latency("50us"), parse_latency("0.2 ms")
        (5e-05, 0.0002)
    """
    found = _LATENCY.fullmatch(text.strip())
    if found is None or not math.isfinite(_number(found)):
        raise InvalidArgument(f"latency: expected such as 50us or 0.2ms, got {text!r}")
    unit = found[3] if found[3] in _TIMES else found[3].lower()
    return float(f"{_number(found) * _TIMES[unit]:.12g}")


def bandwidth_words(bit_per_s: float) -> str:
    """Write a bandwidth with three digits.

    Args:
        bit_per_s: above 0.

    Example:
        >>> bandwidth_words(9.57e8), bandwidth_words(1e8), bandwidth_words(2.348e10), bandwidth_words(math.inf)
        ('957 Mbit/s', '100 Mbit/s', '23.5 Gbit/s', 'any bandwidth')
    """
    if math.isinf(bit_per_s):
        return "any bandwidth"
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if bit_per_s >= size * 0.9995:
            return f"{bit_per_s / size:.3g} {prefix}bit/s"
    return f"{bit_per_s:.3g} bit/s"


def _number(found: re.Match[str]) -> float:
    return float(f"{found[1]}e{found[2] or 0}")
