"""Numbers as a reader wants them: percent, SI prefixes, milliseconds, "27× fewer", and the run in one sentence."""

import math
import re

from spokeshave.communication.link_units import bandwidth_words
from spokeshave.measure import LatencyRatio
from spokeshave.report.run_record import RunRecord

_BEFORE_UNIT = re.compile(r"(?<=\d) (?=[%kMGTBmµs×±])")
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def percent(share: float, digits: int = 2) -> str:
    """Write a share as percent.

    Example:
        >>> percent(0.0098)
        '0.98 %'
    """
    return f"{share * 100:.{digits}f} %"


def count(number: float, unit: str = "") -> str:
    """Write a large number with three digits and an SI prefix.

    Example:
        >>> count(2_293_000), count(812), count(1720, "B")
        ('2.29 M', '812', '1.72 kB')
    """
    for size, prefix in _PREFIXES:
        if abs(number) >= size * 0.9995:
            return f"{_three(number / size)} {prefix}{unit}"
    return f"{number:.0f} {unit}".strip()


def seconds(duration_s: float) -> str:
    """Write a short time in the unit that suits it.

    Example:
        >>> seconds(0.00412), seconds(4.2e-05), seconds(75)
        ('4.12 ms', '42.0 µs', '1 min 15 s')
    """
    if duration_s == 0:
        return "0"
    if duration_s >= 60:
        minutes = int(duration_s // 60)
        whole = f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
        return whole if minutes >= 60 else f"{whole} {duration_s % 60:.0f} s"
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if duration_s >= size * 0.9995 or unit == "µs":
            return f"{_three(duration_s / size)} {unit}"
    raise AssertionError("the last unit always returns")


def scientific(number: float) -> str:
    """Write a small number as a power of ten.

    Example:
        >>> scientific(3.2e-7), scientific(0)
        ('3.2 × 10⁻⁷', '0')
    """
    if number == 0:
        return "0"
    digits, power = f"{number:.1e}".split("e")
    raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{digits} × 10{raised}"


def unbroken(text: str) -> str:
    """Keep every number and its unit on one line, with no-break spaces.

    Example:
        >>> unbroken("5 ms before").split(" ")
        ['5\\xa0ms', 'before']
    """
    return _BEFORE_UNIT.sub("\N{NO-BREAK SPACE}", text)


def _three(number: float) -> str:
    """Write a number with three digits, as 1,234, 123, 12.3 or 1.23."""
    size = abs(number)
    return f"{number:,.{0 if size >= 99.95 else 1 if size >= 9.995 else 2}f}"


def times(ratio: float) -> str:
    """Write a ratio.

    Example:
        >>> times(27.31), times(4.117), times(130.2)
        ('27.3×', '4.12×', '130×')
    """
    return f"{_three(ratio)}×"


def times_fewer(before: float, after: float) -> str:
    """Say how many times fewer something became.

    Example:
        >>> times_fewer(100, 25), times_fewer(100, 99), times_fewer(100, 200), times_fewer(5, 0)
        ('4.00× fewer', 'as many', '2.00× more', 'none left:')
    """
    if after == 0:
        return "none left:" if before else "as many"
    ratio = before / after
    if 0.95 < ratio < 1.05:
        return "as many"
    return f"{times(ratio)} fewer" if ratio > 1 else f"{times(1 / ratio)} more"


def times_faster(ratio: float) -> str:
    """Say how a ratio of times before / after feels.

    Example:
        >>> times_faster(4.1), times_faster(0.5), times_faster(1.01)
        ('4.10× faster', '2.00× slower', 'as fast')
    """
    if 0.95 < ratio < 1.05:
        return "as fast"
    return f"{times(ratio)} faster" if ratio > 1 else f"{times(1 / ratio)} slower"


def bound(bit_per_s: float | None) -> str:
    """Write the bandwidth below which something holds; none where it holds for no bandwidth.

    Example:
        >>> bound(2.5e9), bound(None), bound(float("inf"))
        ('below 2.5 Gbit/s', 'never', 'always')
    """
    if bit_per_s is None:
        return "never"
    return f"below {bandwidth_words(bit_per_s)}" if math.isfinite(bit_per_s) else "always"


def condition(row: LatencyRatio) -> str:
    """Name the batch and the threads of a timing.

    Example:
        >>> condition(LatencyRatio(1, 1, 2.0, 0.1, 2.0, 0.1, 1.0, 0.1, 5))
        'batch 1, one thread'
    """
    threads = "one thread" if row.threads == 1 else f"{row.threads} threads"
    return f"batch {row.batch_size}, {threads}"


def headline_timing(record: RunRecord) -> LatencyRatio | None:
    """Pick the timing that stands for the run: batch 1 on one thread, or else the first."""
    rows = record.comparison.rows if record.comparison else ()
    return next((row for row in rows if (row.batch_size, row.threads) == (1, 1)), rows[0] if rows else None)


def verdict(record: RunRecord) -> str:
    """Say in one sentence what the run came to."""
    before, after = record.baseline, record.final
    change = (after.error - before.error) * 100
    direction = "unchanged" if abs(change) < 0.005 else f"{change:+.2f} points".replace("-", "−")
    start = f"On {record.data}, test error goes" if record.data else "Test error goes"
    old, new = before.measurement, after.measurement
    sentence = (
        f"{start} from {percent(before.error)} to {percent(after.error)} ({direction}), with "
        f"{times_fewer(old.flops, new.flops)} FLOPs and {times_fewer(old.parameters, new.parameters)} parameters"
    )
    timing = headline_timing(record)
    if timing is None:
        return sentence + "."
    spread = (
        f"± {timing.ratio_spread:.2f}" if timing.ratio >= 1.05 else f"{timing.ratio:.2f} ± {timing.ratio_spread:.2f}"
    )
    return f"{sentence}; measured {times_faster(timing.ratio)} ({spread}) at {condition(timing)}."
