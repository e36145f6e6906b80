"""Memory of a training on the CPU."""

from __future__ import annotations

import ctypes
import logging

logger = logging.getLogger(__name__)

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, for its next step.

    By default glibc hands large blocks back to the system at once. A training step frees and takes
    gigabytes, and the system clears every page of them again: on a machine without large pages that
    was a third to a half of the time.

    Returns
    -------
    bool
        False where the C library is another one, and nothing has changed.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    # No block of its own mapping, and no trimming of the heap's end.
    done = mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1)
    logger.debug("Freed memory is kept: %s", bool(done))
    return bool(done)
