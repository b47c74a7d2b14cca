"""Where files may be put. Names come from a listing, so from somebody else: none may lead out of its folder."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from platformdirs import user_cache_path

from phasebus.initializer.downloads.errors import DownloadError

STATE = ".phasebus"
"""The folder, inside a destination, with what belongs to the download itself: lock, record, files in the making."""

_DRIVE = re.compile(r"^[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LONGEST_PART = 255


def target_of(folder: Path, name: str) -> Path:
    """Return where the file called `name` in a listing goes, below `folder`.

    Raises:
        DownloadError: It would go elsewhere, or through a symbolic link, or into our own `STATE`.
    """
    parts = name.split("/")
    if (problem := _problem(name, parts)) is not None:
        raise DownloadError(
            f"the source lists a file {name!r}, which {problem}; nothing of it is fetched, because a name must not lead "
            f"out of {folder}"
        )
    path = folder
    for part in parts[:-1]:
        path /= part
        if path.is_symlink():
            raise DownloadError(
                f"the source lists a file {name!r}, and {path} is a symbolic link; remove the link, or choose another "
                "destination"
            )
    return path / parts[-1]


def _problem(name: str, parts: list[str]) -> str | None:
    """Return what is wrong with a name, to be read after "which"; None if nothing is."""
    if _CONTROL.search(name):
        return "holds a control character"
    if "\\" in name:
        return "holds a backslash"
    if name.startswith("/") or _DRIVE.match(name):
        return "is absolute"
    if any(part in {"", ".", ".."} for part in parts):
        return "holds an empty part, '.' or '..'"
    if parts[0].casefold() == STATE:
        return f"begins with {STATE}/, where downloads keep their own state"
    try:
        encoded = [part.encode() for part in parts]
    except UnicodeEncodeError:
        return "is no text"
    if any(len(part) > _LONGEST_PART for part in encoded):
        return f"has a part of more than {_LONGEST_PART} bytes"
    return None


def default_folder(kind: str, identity: str) -> Path:
    """Return the folder a source is fetched into by default: below PHASEBUS_CACHE_DIR, or in the user's cache (XDG).

    Args:
        kind: The kind of source.
        identity: What tells the source from others, free of secrets. Only its last part is readable in the name.
    """
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", identity.rstrip("/").rsplit("/", 1)[-1]).strip(".-") or "model"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    cache = os.environ.get("PHASEBUS_CACHE_DIR")
    return (Path(cache) if cache else user_cache_path("phasebus")) / "models" / kind / f"{readable[:80]}-{digest}"


def boot() -> str:
    """Return what changes when the machine starts anew: until then, what was written can be trusted to be read back."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"


def free_bytes(folder: Path) -> int:
    """Return how many bytes an ordinary user may still write below `folder`."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize
