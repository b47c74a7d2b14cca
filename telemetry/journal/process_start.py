"""When a process was started, by a clock that no correction of the time changes.

The time of creation that psutil has is the time of the boot plus the age at the start, and Linux moves the time of the boot
when the clock is set: a process would seem to be another one. Source: proc_pid_stat(5), starttime.
"""

from __future__ import annotations

from pathlib import Path


def process_start(pid: int) -> str | None:
    """Return the boot of the machine and the clock ticks after it at which a process was started; None if not known.

    A process that has ended, and that its parent does not wait for, as in a container without an init, has no start either.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        if fields[0] in ("Z", "X"):
            return None
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {int(fields[19])}"
    except (OSError, ValueError, IndexError):
        return None
