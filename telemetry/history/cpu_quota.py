"""The CPU quota of control groups. It limits CPU time, not the CPUs that a process sees.

Sources: https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max) and, for version 1,
https://docs.kernel.org/scheduler/sched-bwc.html (cpu.cfs_quota_us).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def cpu_quota(root: Path = _ROOT, own: Path = _OWN) -> float | None:
    """Return how many CPUs this process may use on average; None without a limit.

    Args:
        root: Where the control groups are mounted.
        own: The file with the groups of this process.
    """
    quotas = [quota for folder in _folders(root, own) if (quota := _quota_of(folder)) is not None]
    return min(quotas, default=None)


def _folders(root: Path, own: Path) -> Iterator[Path]:
    """Yield the folders of the groups of this process and of those above; in a container these may be the root alone."""
    try:
        groups = own.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        groups = []
    for group in groups:
        _, _, controllers_and_path = group.partition(":")
        controllers, _, path = controllers_and_path.partition(":")
        mount = root if not controllers else root / controllers
        if not controllers or "cpu" in controllers.split(","):
            folder = mount / path.lstrip("/")
            yield folder
            yield from (each for each in folder.parents if each.is_relative_to(mount))
    yield root
    yield root / "cpu"


def _quota_of(folder: Path) -> float | None:
    try:
        if (limit := folder / "cpu.max").exists():
            quota, period = limit.read_text(encoding="ascii").split()
        else:
            quota, period = (
                (folder / f"cpu.cfs_{name}_us").read_text(encoding="ascii") for name in ("quota", "period")
            )
        cpus = float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):  # also "max", which is no limit
        return None
    return cpus if cpus > 0 else None
