"""Large blocks of memory are kept: what a step of a training frees, the next one gets back without asking the system.

glibc returns freed blocks of 128 KiB and more to Linux, which hands them out again as pages of zeros, one fault for
each 4 KiB. For a small convolutional network these faults took a third of a training step on the machine that this
was measured on.
"""

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Parameters of mallopt(3)."""
_MOST_MMAP = 32 * 2**20
"""The largest that glibc takes: blocks above it still come from, and go back to, the system."""


def keep_large_blocks() -> bool:
    """Make this process keep memory that it frees, up to what it once used; for processes that are ours.

    Returns:
        Whether it could be asked for: only glibc, so Linux, can.

    Example:
        >>> isinstance(keep_large_blocks(), bool)
        True
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    wanted = ((_MMAP_THRESHOLD, _MOST_MMAP), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 64 * 2**20))
    return all(mallopt(parameter, value) == 1 for parameter, value in wanted)
