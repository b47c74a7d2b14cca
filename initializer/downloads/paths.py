"""The folders that downloads use, and facts about the machine they lie on."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from phasebus.telemetry.folders import cache_folder

STATE = ".phasebus"
"""The folder in a destination that holds the download's own state: lock, record, partial files."""


def expanded(path: Path) -> Path:
    """Return `path` with ``~`` replaced; as it is where there is no home directory."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def exists(path: Path) -> bool:
    """Return whether `path` exists; False for what cannot be a path."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def default_folder(kind: str, identity: str) -> Path:
    """Return the folder that a source is downloaded into by default.

    Args:
        kind: The kind of source.
        identity: The address that distinguishes the source, without secrets; its last part is readable in the name.
    """
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", identity.rstrip("/").rsplit("/", 1)[-1]).strip(".-") or "model"
    return cache_folder() / "models" / kind / f"{readable[:80]}-{_digest(identity)}"


def spare_record(folder: Path) -> Path:
    """Return where the record of a destination is kept that cannot be written."""
    return cache_folder() / "records" / f"{_digest(str(folder))}.jsonl"


def boot_id() -> str:
    """Return an id of the machine's current boot: data written during it can be trusted to be read back."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"


def free_bytes(folder: Path) -> int:
    """Return the number of bytes that an ordinary user may still write below `folder`."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:12]
