"""The token by which the same user reads, on this machine, a service that has none for other machines.

It lies in a file below the user's private runtime folder, named by the port, so that `phasebus watch` finds it.
"""

from __future__ import annotations

import logging
import stat
from contextlib import suppress
from os import geteuid
from pathlib import Path
from typing import Final

from phasebus.telemetry.files import read_regular, replace_regular
from phasebus.telemetry.folders import runtime_folder

logger = logging.getLogger("phasebus.telemetry")

_MOST_BYTES: Final = 200


def offer_token(port: int, token: str) -> Path | None:
    """Write `token` for the readers of the service on `port`; return the file, or None if the folder cannot be used."""
    try:
        folder = runtime_folder()  # fails without any folder for temporary files
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_private(folder):
            return None
        replace_regular(_file(folder, port), token.encode(), 0o600)
    except OSError as error:  # only `phasebus watch` on this machine misses it
        logger.debug("no token for readers on this machine: %s", error)
        return None
    return _file(folder, port)


def withdraw_token(file: Path, token: str) -> None:
    """Remove the file of a service that has ended, unless another service has replaced it."""
    with suppress(OSError):
        if read_regular(file, _MOST_BYTES) == token.encode():
            file.unlink()


def offered_token(port: int) -> str | None:
    """Return the token for the service on `port` of this machine; None if this user runs none that offers one."""
    try:
        folder = runtime_folder()
        return read_regular(_file(folder, port), _MOST_BYTES).decode("ascii") if _is_private(folder) else None
    except (OSError, UnicodeError):
        return None


def _file(folder: Path, port: int) -> Path:
    return folder / f"service-{port}.token"


def _is_private(folder: Path) -> bool:
    status = folder.lstat()
    others = status.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == geteuid() and not others
