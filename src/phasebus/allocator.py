"""The memory of the C library's allocator; on others than glibc, nothing is done."""

import ctypes
import os
from contextlib import suppress

_M_ARENA_MAX = -8  # malloc.h


def use_one_arena() -> None:
    """Let the threads of this process share one arena, unless its environment sets their number.

    By default, each thread gets its own, up to eight for each CPU, and the others cannot use its free memory.
    """
    if "MALLOC_ARENA_MAX" not in os.environ and "arena_max" not in os.environ.get("GLIBC_TUNABLES", ""):
        with suppress(AttributeError):
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def return_free_memory() -> None:
    """Return the free memory of the allocator to the system."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
