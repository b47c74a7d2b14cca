"""Validation of all values from a source: file names, versions, sizes, digests. No name is used as a path unchecked."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Final

from phasebus.initializer.downloads.errors import DownloadError
from phasebus.initializer.downloads.paths import STATE
from phasebus.initializer.downloads.protocol import Listing, RemoteFile

_DRIVE: Final = re.compile(r"^[A-Za-z]:")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f\u2028\u2029]")
_MAX_PART: Final = 255
_MAX_NAME: Final = 2048
_MAX_SIZE: Final = 2**60
_DIGESTS: Final = {
    "sha256": re.compile("[0-9a-f]{64}"),
    "git-sha1": re.compile("[0-9a-f]{40}"),
    "crc32": re.compile("[0-9a-f]{8}"),
}
_VALIDATOR: Final = re.compile(r"[^\x00-\x1f\x7f]{1,1024}")


def remote_parts(name: str, what: str) -> list[str]:
    """Return the parts of a name from a source, after checking that the name stays inside its folder.

    Args:
        name: The name, with ``/`` between its parts.
        what: The kind of name, for the message: "a file", "the revision".

    Raises:
        DownloadError: The name leads out of its folder, or is not a file name.
    """
    parts = name.split("/")
    if (problem := _problem(name, parts)) is not None:
        raise DownloadError(
            f"the source names {what} {name[:_MAX_PART]!r}, which {problem}; it must not lead out of its folder"
        )
    return parts


def is_remote_name(name: str) -> bool:
    """Return whether `remote_parts` accepts a name."""
    return _problem(name, name.split("/")) is None


def target_path(folder: Path, name: str) -> Path:
    """Return the path of the file that a listing calls `name`, below `folder`.

    Raises:
        DownloadError: The path would be outside `folder`, behind a symbolic link, or in our own `STATE` folder.
    """
    parts = remote_parts(name, "a file")
    if parts[0].casefold() == STATE:
        raise DownloadError(f"the source names a file {name!r}; {STATE}/ is where downloads keep their own state")
    path = folder
    for part in parts[:-1]:
        path /= part
        if path.is_symlink():
            raise DownloadError(
                f"the source names a file {name!r}, and {path} is a symbolic link; remove the link, or choose another "
                "destination"
            )
    return path / parts[-1]


def check_listing(listing: Listing, display: str) -> None:
    """Check the sizes, digests and validators of a listing; `target_path` checks the names.

    Raises:
        DownloadError: One of them is impossible, or a name appears twice.
    """
    names = Counter(file.name for file in listing.files)
    if names and (most := names.most_common(1)[0])[1] > 1:
        raise DownloadError(f"{display} lists {most[0]!r} more than once")
    for file in listing.files:
        if (problem := _file_problem(file)) is not None:
            raise DownloadError(f"{display} lists {file.name!r} with {problem}")
    if listing.revision is not None:
        remote_parts(listing.revision, "the revision")


def _file_problem(file: RemoteFile) -> str | None:
    size, digest, validator = file.size, file.digest, file.validator
    if size is not None and (type(size) is not int or not 0 <= size <= _MAX_SIZE):
        return f"the size {str(size)[:40]!r}"
    if digest is not None and not (
        isinstance(digest.value, str)
        and digest.algorithm in _DIGESTS
        and _DIGESTS[digest.algorithm].fullmatch(digest.value)
    ):
        return f"the {digest.algorithm} digest {str(digest.value)[:80]!r}"
    if validator is not None and not (isinstance(validator, str) and _VALIDATOR.fullmatch(validator)):
        return f"the validator {str(validator)[:80]!r}"
    return None


def _problem(name: str, parts: list[str]) -> str | None:
    """Return the problem of a name, as a clause that follows "which"; None without one."""
    if _UNPRINTABLE.search(name):
        return "contains a control character"
    if "\\" in name:
        return "contains a backslash"
    if name.startswith("/") or _DRIVE.match(name):
        return "is absolute"
    if any(part in {"", ".", ".."} for part in parts):
        return "contains an empty part, '.' or '..'"
    try:
        encoded = [part.encode() for part in parts]
    except UnicodeEncodeError:
        return "is not valid Unicode"
    if any(len(part) > _MAX_PART for part in encoded) or len(name) > _MAX_NAME:
        return f"has a part of more than {_MAX_PART} bytes, or more than {_MAX_NAME} characters"
    return None
