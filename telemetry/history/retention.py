"""Removing the journals of old runs, so that the folder of runs stays bounded.

A run that is still going, or that may be, is never removed, and nor is a file that phasebus did not name. Any number of
processes may prune the same folder at the same time.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from platform import node as host_name
from typing import Final

from phasebus.telemetry.journal import JournalError, runs_folder, summarize

RUNS_VARIABLE: Final = "PHASEBUS_KEEP_RUNS"
DAYS_VARIABLE: Final = "PHASEBUS_KEEP_DAYS"

_DAY_SECONDS: Final = 86_400.0
_SAFE_SECONDS: Final = 3600.0
"""A run with a file that was changed less than this ago is kept."""

_SAFE_SECONDS_ELSEWHERE: Final = 7 * _DAY_SECONDS
"""Likewise for a run of another machine that has not closed its journal: whether its process is alive is not known here."""

_MAX_BYTES: Final = 10**9
_MAX_REMOVED: Final = 1000
_MAX_DIGITS: Final = 10
_run_of = re.compile(r"(\d{8}T\d{6}-[0-9a-f]{4,32})(?:\.jsonl|\.engine\.log)?", re.ASCII).fullmatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How many runs are kept.

    Attributes:
        runs: Their number.
        days: Their age, in days.
        size: What their files have together, in bytes.
    """

    runs: int = 200
    days: float = 90.0
    size: int = _MAX_BYTES

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Retention:
        """Return the retention that PHASEBUS_KEEP_RUNS and PHASEBUS_KEEP_DAYS set; a value that is no number is ignored."""
        default = cls()
        runs, days = _number(environment.get(RUNS_VARIABLE, "")), _number(environment.get(DAYS_VARIABLE, ""))
        return cls(runs=default.runs if runs is None else runs, days=default.days if days is None else days)


@dataclass(slots=True, kw_only=True)
class StoredRun:
    """The files of a run.

    Attributes:
        run: The run's id.
        paths: Its journal, the folder of its members' journals and the output of its engine, as far as there are any.
        changed: When one of them was last changed, in seconds since the epoch.
        size: The size of all files, in bytes.
    """

    run: str
    paths: list[Path] = field(default_factory=list)
    changed: float = 0.0
    size: int = 0


def prune(
    retention: Retention | None = None, *, folder: Path | None = None, keep: str = "", dry_run: bool = False
) -> Sequence[StoredRun]:
    """Remove the runs of this user beyond `retention`, the oldest first, and return them.

    Args:
        retention: What is kept; by default that of the environment.
        folder: The folder of the journals; by default that of this user.
        keep: The id of a run that is kept in any case.
        dry_run: Whether the runs are only returned.
    """
    retention = retention or Retention.from_environment()
    now, size = time.time(), 0
    stored = sorted(_stored_runs(folder or runs_folder()), key=lambda each: each.run, reverse=True)
    beyond: list[StoredRun] = []
    removed: list[StoredRun] = []
    for number, each in enumerate(stored):
        size += each.size
        too_old = now - each.changed > retention.days * _DAY_SECONDS
        if (number >= retention.runs or too_old or size > retention.size) and each.run != keep:
            beyond.append(each)
    for each in reversed(beyond):
        if len(removed) == _MAX_REMOVED:
            break
        if not _may_run(each, now):
            removed.append(each)
            if not dry_run:
                _remove(each)
    return removed


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < _MAX_DIGITS else None


def _stored_runs(folder: Path) -> Iterator[StoredRun]:
    found: dict[str, StoredRun] = {}
    with suppress(OSError):
        for entry in os.scandir(folder):
            if (match := _run_of(entry.name)) is not None:
                with suppress(OSError):
                    _add(found.setdefault(match[1], StoredRun(run=match[1])), Path(entry.path))
    yield from (each for each in found.values() if each.paths)


def _add(run: StoredRun, path: Path) -> None:
    """Add a file, or a folder with its files, unless it belongs to another user or is neither."""
    status = path.lstat()
    if status.st_uid != os.geteuid() or not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        return
    run.paths.append(path)
    files = list(path.iterdir()) if stat.S_ISDIR(status.st_mode) else [path]
    for file in files:
        with suppress(OSError):
            each = file.lstat()
            run.changed = max(run.changed, each.st_mtime)
            run.size += each.st_size
    if not files:
        run.changed = max(run.changed, status.st_mtime)


def _may_run(run: StoredRun, now: float) -> bool:
    if now - run.changed < _SAFE_SECONDS:
        return True
    journals = [path for path in run.paths if path.suffix == ".jsonl"]
    journals += [member for path in run.paths if path.is_dir() for member in path.glob("*.jsonl")]
    for journal in journals:
        try:
            summary = summarize(journal)
        except JournalError:
            continue
        if summary.state == "running":
            return True
        elsewhere = summary.host != host_name() and summary.state != "closed"
        if elsewhere and now - run.changed < _SAFE_SECONDS_ELSEWHERE:
            return True
    return False


def _remove(run: StoredRun) -> None:
    """Remove the files of a run; what another process removes meanwhile, or is not removable, is left."""
    for path in run.paths:
        with suppress(OSError):
            if stat.S_ISDIR(path.lstat().st_mode):
                _empty(path)
                path.rmdir()
            else:
                path.unlink()


def _empty(folder: Path) -> None:
    """Remove the files of a folder, and none of what a link in its place leads to."""
    descriptor = os.open(folder, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for entry in list(os.scandir(descriptor)):
            os.unlink(entry.name, dir_fd=descriptor)
    finally:
        os.close(descriptor)
