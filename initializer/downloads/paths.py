"""The folders of downloads, and properties of the machine that they are on."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from phasebus.telemetry.folders import cache_folder

STATE = ".phasebus"
"""The folder inside a destination for the download's own state: lock, record, partial files."""


ANOTHER_FOLDER = "choose another destination: download_destination, or HF_HOME for the hub's cache and PHASEBUS_CACHE_DIR for other sources"
"""The end of a message about a folder that cannot be written."""


def expanded(path: Path) -> Path:
    """Return `path` with ``~`` replaced; unchanged without a home directory."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def default_folder(kind: str, identity: str) -> Path:
    """Return the default destination of a source.

    Args:
        kind: The kind of source.
        identity: The address that identifies the source, without secrets; the folder's name contains its last part.
    """
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", identity.rstrip("/").rsplit("/", 1)[-1]).strip(".-") or "model"
    return cache_folder() / "models" / kind / f"{readable[:80]}-{_digest(identity)}"


def spare_record(folder: Path) -> Path:
    """Return the path of the record for a read-only destination."""
    return cache_folder() / "records" / f"{_digest(str(folder))}.jsonl"


def boot_id() -> str:
    """Return the id of the machine's current boot; after a loss of power it is a different one."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"


def free_bytes(folder: Path) -> int | None:
    """Return the number of bytes that are free below `folder` for an ordinary user.

    Returns:
        The number; None if it is unknown: some file systems in user space have no such call, or describe one of 0 blocks.
    """
    try:
        status = os.statvfs(folder)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize if status.f_blocks else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:12]
