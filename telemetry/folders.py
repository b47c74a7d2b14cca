"""The folders of a user that phasebus writes to, also where the user has no home."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from platformdirs import user_cache_path, user_state_path

_MOST_FOLDERS = 100


def state_folder() -> Path:
    """Return the folder of journals: PHASEBUS_STATE_DIR, or else the user's state folder (XDG_STATE_HOME).

    A user without a home, such as a container's random user id, gets a folder below that for temporary files.
    """
    return _folder("PHASEBUS_STATE_DIR", user_state_path)


def cache_folder() -> Path:
    """Return the folder of downloads and their records: PHASEBUS_CACHE_DIR, or else the user's cache (XDG_CACHE_HOME).

    A user without a home gets a folder below that for temporary files.
    """
    return _folder("PHASEBUS_CACHE_DIR", user_cache_path)


def runtime_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of sockets and tokens: PHASEBUS_RUNTIME_DIR, or else the user's runtime folder (XDG_RUNTIME_DIR).

    Without one, it is below the folder for temporary files.

    Args:
        environment: The environment of the process whose folder it is.
    """
    if (folder := _named("PHASEBUS_RUNTIME_DIR", environment)) is not None:
        return folder
    base = Path(environment.get("XDG_RUNTIME_DIR") or "/")
    if base != Path("/") and base.is_absolute() and _is_ours(base, os.getuid()) and os.access(base, os.W_OK | os.X_OK):
        return base / "phasebus"
    return _temporary_folder() / "runtime"


def _folder(variable: str, user_path: Callable[[str], Path]) -> Path:
    if (folder := _named(variable, os.environ)) is not None:
        return folder
    try:
        path = user_path("phasebus")
    except RuntimeError:  # there is no HOME and no entry of the user
        return _temporary_folder()
    return path if _is_usable(path) else _temporary_folder()


def _named(variable: str, environment: Mapping[str, str]) -> Path | None:
    """Return the folder that a variable names, if any; no shell expands ``~`` and ``$NAME`` in the files of containers."""
    value = environment.get(variable, "").strip()
    return Path(os.path.expanduser(os.path.expandvars(value))) if value else None  # noqa: PTH111  # it raises for no user


def _is_usable(path: Path) -> bool:
    """Return whether `path` lies outside the home, where the user has put it, or in a home that can be written.

    A home of "/", as container runtimes set it for a user id without an entry, is no home; neither is one that does not
    exist or belongs to another user.
    """
    if not path.is_absolute() or path.parts[1] in (".local", ".cache"):
        return False
    if not path.is_relative_to(Path("~").expanduser()):
        return True
    for folder in (path, *path.parents):
        try:
            folder.stat()
        except FileNotFoundError:
            continue
        except OSError:
            return False
        return os.access(folder, os.W_OK | os.X_OK)
    return False


def _temporary_folder() -> Path:
    """Return the first folder ``phasebus-UID…`` for temporary files that does not belong to another user."""
    base, uid = _folder_for_temporary_files(), os.getuid()
    names = (f"phasebus-{uid}", *(f"phasebus-{uid}-{number}" for number in range(2, _MOST_FOLDERS)))
    return next((base / name for name in names if _is_ours(base / name, uid)), base / names[-1])


def _folder_for_temporary_files() -> Path:
    """Return the folder for temporary files; /tmp if none can be written, so that an error is one of what is written there."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:  # as in a container with a read-only root
        return Path("/tmp")  # noqa: S108  # the folder in it must belong to the user


def _is_ours(folder: Path, uid: int) -> bool:
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == uid
