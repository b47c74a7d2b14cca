"""``s3://``, ``gs://`` and ``az://`` through obstore, with credentials and endpoints by each ecosystem's variables.

A large object is asked for in pieces, because the store's client knows a time limit for a whole request only, and no
limit for the pause between two bytes. Each piece names the object's ETag, so pieces of two objects are never glued.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast
from urllib.parse import urlsplit

from phasebus.initializer.downloads.errors import CorruptError, DownloadError, TransferError
from phasebus.initializer.downloads.paths import default_folder
from phasebus.initializer.downloads.settings import DownloadSettings
from phasebus.initializer.downloads.sources.protocol import BLOCK, Listing, RemoteFile
from phasebus.initializer.downloads.sources.stores import HINTS, StoreKind, connect, first_line

PIECE = 64 * 2**20
"""How many bytes are asked for at once."""

_SLOWEST = 2 * 2**20
"""How many bytes a second a connection is expected to bring at least."""

_REFUSED_LISTING = re.compile(r"list request: .* status code: (?P<status>\d{3})\b")
"""How obstore tells how a listing was refused: it has errors of its own for a refused object only."""

_CREDENTIALS = re.compile(r"token request|performing [A-Z]+ http://169\.254\.")
"""How it tells that credentials were asked for: of a service the environment names, or of this machine in its cloud."""


def object_source(model: str, settings: DownloadSettings) -> ObjectSource:
    """Return the source of ``s3://bucket/prefix``, ``gs://…`` or ``az://…``."""
    return ObjectSource(cast("StoreKind", model.partition("://")[0].lower()), model, settings)


class ObjectSource:
    """The objects below a prefix of a bucket, or one object.

    Args:
        kind: Which store.
        url: ``scheme://bucket/prefix``.
        settings: How to fetch.
    """

    def __init__(self, kind: StoreKind, url: str, settings: DownloadSettings) -> None:
        parts = urlsplit(url)
        if not parts.netloc:
            raise DownloadError(f"{kind}:// is followed by no bucket; write {kind}://bucket/prefix")
        if "@" in parts.netloc:
            raise DownloadError(f"{kind}:// takes no user and password; credentials come from {HINTS[kind]}")
        self._kind = kind
        self._bucket = parts.netloc
        self._prefix = parts.path.strip("/")
        self._settings = settings
        self._store: Any = None
        self._single = False
        self.display = f"{kind}://{self._bucket}/{self._prefix}"

    @property
    def kind(self) -> str:
        """Which store."""
        return self._kind

    def listing(self) -> Listing:
        """Return the objects below the prefix; or the one object of exactly that name."""
        import obstore

        found = []
        try:
            store = self._connected()
            for objects in obstore.list(store, prefix=self._prefix or None, chunk_size=1000):
                found += [dict(each) for each in objects]
            if not found and self._prefix:
                found = [dict(obstore.head(store, self._prefix))]
                self._single = True
        except Exception as error:  # noqa: BLE001  # obstore raises its own errors, and built-in ones
            raise self.failure(error) from None
        if not found:
            raise DownloadError(f"there is nothing at {self.display}; check the bucket's name")
        return Listing(
            files=tuple(self._file(each) for each in found if each["size"] or not each["path"].endswith("/")),
            folder=default_folder(self._kind, self.display),
            single=self._single,
        )

    def open(self, file: RemoteFile, start: int, validator: str | None) -> ObjectBody:
        """Ask the store for an object."""
        if start and validator != file.validator:
            start = 0
        return ObjectBody(self, file, start)

    def piece(self, file: RemoteFile, start: int, end: int) -> Iterator[bytes]:
        """Return the bytes of an object from `start` to before `end`."""
        import obstore

        options: dict[str, Any] = {"range": (start, end)}
        if file.validator is not None:
            options["if_match"] = file.validator
        path = self._prefix if self._single else "/".join(filter(None, (self._prefix, file.name)))
        try:
            result = obstore.get(self._connected(), path, options=options)
            yield from result.stream(min_chunk_size=BLOCK)
        except Exception as error:  # noqa: BLE001  # obstore raises its own errors, and built-in ones
            raise self.failure(error) from None

    def failure(self, error: Exception) -> Exception:
        """Return what an error of obstore's means here."""
        from obstore.exceptions import PermissionDeniedError, PreconditionError, UnauthenticatedError

        if isinstance(error, DownloadError):
            return error
        line = str(error).partition("\n")[0]
        if _CREDENTIALS.search(line):
            return TransferError(
                f"no credentials could be had ({first_line(error)}); they come from {HINTS[self._kind]}, or from the cloud "
                "this machine is in"
            )
        refused = _REFUSED_LISTING.search(line)
        status = refused and refused["status"]
        if isinstance(error, FileNotFoundError) or status == "404":
            return DownloadError(f"there is nothing at {self.display}; check the bucket and the prefix")
        if isinstance(error, PermissionDeniedError | UnauthenticatedError) or status in {"401", "403"}:
            return DownloadError(
                f"{self.display} refuses access; credentials and endpoint come from {HINTS[self._kind]}"
            )
        if isinstance(error, PreconditionError):
            return CorruptError("it was replaced while it was being fetched")
        return TransferError(f"{self._kind} failed ({type(error).__name__}: {first_line(error)})")

    def close(self) -> None:
        """Let go of the store, and with it of its connections."""
        self._store = None

    def _file(self, each: dict[str, Any]) -> RemoteFile:
        path: str = each["path"]
        name = path.rpartition("/")[2] if self._single else path[len(self._prefix) :].removeprefix("/")
        return RemoteFile(name=name, size=each["size"], validator=each["e_tag"])

    def _connected(self) -> Any:
        if self._store is None:
            longest = self._settings.stall_seconds + PIECE / _SLOWEST
            self._store = connect(self._kind, self._bucket, self._settings, longest)
        return self._store


class ObjectBody:
    """The bytes of an object, piece by piece; see `Body`."""

    def __init__(self, source: ObjectSource, file: RemoteFile, start: int) -> None:
        self._source = source
        self._file = file
        self._stopped = False
        self._blocks = self._received(start)
        self.start = start
        self.size = file.size
        self.validator = file.validator

    def receive(self, room: memoryview) -> memoryview:
        """Return the next bytes, in memory of the store's client; none at the end."""
        return memoryview(next(self._blocks, b""))

    def _received(self, at: int) -> Iterator[bytes]:
        size = self._file.size or 0
        while at < size and not self._stopped:
            end = min(at + PIECE, size)
            for block in self._source.piece(self._file, at, end):
                at += len(block)
                yield block
                if at == end:
                    break  # to ask for more would cost as much again
            if at != end:
                raise TransferError(f"the store sent the bytes up to {at}, where {end} was asked for")

    def stop(self) -> None:
        """End the reading before the next piece."""
        self._stopped = True

    def close(self) -> None:
        """Hold nothing back."""
