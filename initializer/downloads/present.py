"""Files that are present already: under their final names, or in other versions of the model."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from phasebus.initializer.downloads.checks import Digest, hasher
from phasebus.initializer.downloads.protocol import BLOCK, RemoteFile
from phasebus.initializer.downloads.record import Record

_SHA256 = re.compile(r"[0-9a-f]{64}")


def earlier_copies(file: RemoteFile, folders: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Yield the folders that have a file with the name and the size of `file`, each with the path of that file.

    A file that several of them share is yielded once, and one that the hub's cache names by another digest is not.

    Args:
        file: The file of the listing; without a digest it cannot be recognized.
        folders: The folders of other versions, see `Listing.earlier`.
    """
    found = set()
    for folder in folders if file.digest is not None else ():
        path = folder / file.name
        with suppress(OSError):
            status = path.stat()
            identity = (status.st_dev, status.st_ino)
            if file.size in {None, status.st_size} and identity not in found and not _is_other_blob(path, file):
                found.add(identity)
                yield folder, path


def _is_other_blob(path: Path, file: RemoteFile) -> bool:
    """Return whether `path` links to a file of the hub's cache, ``blobs/SHA256``, with another digest than `file` has."""
    try:
        blob = path.readlink()
    except OSError:  # no link
        return False
    named = blob.parent.name == "blobs" and _SHA256.fullmatch(blob.name) is not None
    return named and file.digest is not None and file.digest.algorithm == "sha256" and blob.name != file.digest.value


def matching_status(
    path: Path,
    file: RemoteFile,
    digest: Digest,
    on_read: Callable[[int], None],
    record: Record | None = None,
) -> os.stat_result | None:
    """Return the status of the file at `path` if it is `file`; else None.

    Args:
        path: The path.
        file: The file of the listing.
        digest: The digest that it must have.
        on_read: Called with the number of bytes of each block that is read, and may raise.
        record: A record of verified files; a file that it has is not read, whether it is `file` or another one.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or file.size not in {None, status.st_size}:
            return None
        if record is not None and record.is_verified(file, status):
            return status
        if record is not None and record.is_other(file, status):
            return None
        found = hasher(digest.algorithm, status.st_size)
        buffer = memoryview(bytearray(BLOCK))
        while count := os.readv(descriptor, [buffer]):
            on_read(count)
            found.update(buffer[:count])
        return status if found.hexdigest() == digest.value else None
    finally:
        os.close(descriptor)


def link(path: Path, temporary: Path, target: Path, status: os.stat_result) -> None:
    """Make `target` a hard link of the file at `path`. It needs no space, and stays when the other name is deleted.

    Args:
        path: The file.
        temporary: A free name in the file system of the target.
        target: The path of the link; a file there is replaced.
        status: The status that the file had when it was checked.

    Raises:
        OSError: The file system has no hard links, the file belongs to another user, or it has been replaced.
    """
    temporary.unlink(missing_ok=True)
    os.link(path.resolve(), temporary)
    try:
        linked = temporary.stat(follow_symlinks=False)
        if (linked.st_dev, linked.st_ino) != (status.st_dev, status.st_ino):
            raise FileNotFoundError(path)
        temporary.replace(target)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
