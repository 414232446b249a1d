"""What people write is read as they mean it, or refused with an example."""

import math

import pytest

from spokeshave.communication.link_units import bandwidth_words, parse_bandwidth, parse_latency
from spokeshave.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100mbit", 1e8), ("1Gbit", 1e9), ("10 Gbit/s", 1e10), ("950Mbps", 9.5e8), (" 64 kbit ", 64e3),
        ("1.5tbit", 1.5e12), ("1e3mbit", 1e9), (".5gbit", 5e8), ("300bit", 300.0),
    ],
)  # fmt: skip
def test_bandwidths(text, rate):
    assert parse_bandwidth(text) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["", "fast", "100", "mbit", "-1gbit", "0mbit", "1 zbit", "1gbit2", "1e999gbit", "nan"])
def test_what_is_no_bandwidth(text):
    with pytest.raises(InvalidArgument, match="bandwidth: expected"):
        parse_bandwidth(text)


@pytest.mark.parametrize("text", ["12MB/s", "1GB", "3 MiB/s", "10 bytes/s"])
def test_bytes_are_not_taken_for_bits(text):
    with pytest.raises(InvalidArgument, match="in bits, eight of a byte"):
        parse_bandwidth(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("50us", 5e-5), ("50µs", 5e-5), ("0.2ms", 2e-4), ("1 s", 1.0), ("700ns", 7e-7), ("0us", 0.0)]
)
def test_latencies(text, seconds):
    assert parse_latency(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "50", "-1us", "quick", "5 min", "1e999s"])
def test_what_is_no_latency(text):
    with pytest.raises(InvalidArgument, match="latency: expected such as 50us"):
        parse_latency(text)


@pytest.mark.parametrize("rate", [1e3, 9.6e7, 1e9, 4.25e10, 3e12, 17.0])
def test_what_is_written_is_read_again(rate):
    assert parse_bandwidth(bandwidth_words(rate)) == pytest.approx(rate)
    assert bandwidth_words(math.inf) == "any bandwidth"
