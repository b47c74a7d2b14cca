"""Opening files in folders that others may write to: what they put in the place of a file is never followed or waited for."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from errno import EINVAL, EPERM
from pathlib import Path
from typing import Final

_FLAGS: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Opening a named pipe without O_NONBLOCK waits for its other end."""


def open_regular(
    path: Path | str, flags: int, mode: int = 0o600, *, own: bool = False, follow: bool = False, device: bool = False
) -> int:
    """Return a descriptor of the file at `path`, opened with `flags`.

    Args:
        path: The file.
        flags: As of `os.open`.
        mode: The permissions of a new file.
        own: Whether a file of another user is rejected.
        follow: Whether a symbolic link to a file is accepted, for a path that the user has named.
        device: Whether a character device such as /dev/null is accepted.

    Raises:
        OSError: The file cannot be opened, is a symbolic link or no regular file, or belongs to another user.
    """
    descriptor = os.open(path, flags | (_FLAGS & ~os.O_NOFOLLOW if follow else _FLAGS), mode)
    status = os.fstat(descriptor)
    if device and stat.S_ISCHR(status.st_mode):
        return descriptor
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise OSError(EINVAL, "it is no regular file", str(path))
    if own and status.st_uid != os.geteuid():
        os.close(descriptor)
        raise OSError(EPERM, "it belongs to another user", str(path))
    return descriptor


def create_folder(folder: Path) -> None:
    """Create a folder with its parents, if it is not there; a link that another user has put in its place is an error.

    A link of this user, or of the administrator, is accepted.

    Raises:
        OSError: The folder cannot be created, or is a link of another user.
    """
    folder.mkdir(parents=True, exist_ok=True)
    status = folder.lstat()
    if stat.S_ISLNK(status.st_mode) and status.st_uid not in (os.geteuid(), 0):
        raise OSError(EPERM, "it is a link of another user", str(folder))


def read_regular(path: Path, most_bytes: int, *, follow: bool = False) -> bytes:
    """Return the content of a file; see `open_regular`.

    Raises:
        OSError: It cannot be read, is a symbolic link or no regular file, or has more than `most_bytes` bytes.
    """
    with os.fdopen(open_regular(path, os.O_RDONLY, follow=follow), "rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(EINVAL, f"it has more than {most_bytes} bytes", str(path))
    return content


def replace_regular(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Replace the file at `path` at once by one with this content; readers find the old content or the new.

    Raises:
        OSError: It cannot be written, or there is a folder in its place.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    with suppress(FileNotFoundError):
        temporary.unlink()
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
        file.write(content)
    try:
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise
