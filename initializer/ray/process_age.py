"""When this process was created: Ray starts workers before there is work for them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil


def creation_time_ns() -> int:
    """Return when this process was created, in nanoseconds since the epoch; to 10 ms on Linux.

    psutil adds the age to the time of the boot, which Linux gives in whole seconds. Source: proc_pid_stat(5), starttime.
    """
    try:
        fields = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return int(psutil.Process().create_time() * 1e9)
    return time.time_ns() - int(age * 1e9)
