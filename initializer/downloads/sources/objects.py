"""``s3://``, ``gs://`` and ``az://`` through obstore, with credentials and endpoints from each ecosystem's variables.

A large object is requested in pieces, because the store's client limits the time of a whole request only, not the pause
between two bytes. Each request contains the object's ETag, so pieces of different versions are never combined.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, cast

from phasebus.initializer.downloads.errors import CorruptError, DownloadError, TransferError
from phasebus.initializer.downloads.names import is_remote_name
from phasebus.initializer.downloads.protocol import BLOCK, Listing, RemoteFile, StreamBody
from phasebus.initializer.downloads.settings import DownloadSettings
from phasebus.initializer.downloads.sources.aws_profile import unsupported_profile
from phasebus.initializer.downloads.sources.http import HttpClient, StatusError, error_of_status
from phasebus.initializer.downloads.sources.s3_listing import list_keys, signing_config
from phasebus.initializer.downloads.sources.store_errors import LISTING, STATUS, is_denied, statement
from phasebus.initializer.downloads.sources.stores import HINTS, StoreKind, connect, first_line
from phasebus.telemetry.redaction import redact

PIECE: Final = 64 * 2**20
"""Number of bytes per request."""

_SLOWEST: Final = 2 * 2**20
"""Minimum expected speed of a connection, in bytes per second."""

_CREDENTIALS: Final = re.compile(r"token request|token file|performing [A-Z]+ http://169\.254\.")
"""The message of obstore for a failed request for credentials, to a configured service or to the cloud's own."""

_BAD_PATH: Final = re.compile(
    r"invalid path: Path \"(?P<key>.*)\" contained|Could not parse path|Error parsing Path \"(?P<other>.*?)\":"
)

_HOPELESS: Final = re.compile(
    r"invalid peer certificate|builder error|relative URL without a base|redirect without LOCATION|invalid URI|unsupported scheme",
    re.IGNORECASE,
)
"""Failures without a response for which a retry does not help."""

_UNTRUSTED: Final = re.compile(r"InvalidCertificate\(\s*([A-Za-z]{1,40})")
_FULL: Final = frozenset({999, 1000})
"""Numbers of objects of a full page of a listing, of which obstore removes the prefix itself."""

_UNORDERED: Final = "--x-s3"
"""The end of the name of a directory bucket, whose listing has no order."""

_ARCHIVED: Final = "InvalidObjectState"

_RETRYABLE: Final = frozenset({408, 409, 425, 429})


def object_source(model: str, settings: DownloadSettings) -> ObjectSource:
    """Return the source of ``s3://bucket/prefix``, ``gs://…`` or ``az://…``."""
    return ObjectSource(cast("StoreKind", model.partition("://")[0].lower()), model, settings)


class ObjectSource:
    """The objects below a prefix of a bucket, or one object.

    Args:
        kind: The kind of store.
        url: ``scheme://bucket/prefix``. The prefix is a key and not URL-encoded: ``#``, ``?`` and ``%`` are literal.
        settings: The limits.
    """

    def __init__(self, kind: StoreKind, url: str, settings: DownloadSettings) -> None:
        bucket, _, prefix = url.partition("://")[2].partition("/")
        if not bucket:
            raise DownloadError(f"{kind}:// is followed by no bucket; write {kind}://bucket/prefix")
        if bucket.lower().startswith("arn:"):
            raise DownloadError(
                f"{kind}:// is followed by an ARN; write the name of the bucket, or the alias of the access point "
                "(…-s3alias)"
            )
        if "@" in bucket:
            raise DownloadError(f"{kind}:// takes no user and password; credentials come from {HINTS[kind]}")
        self._prefix = prefix.removesuffix("/")
        self.display = redact(f"{kind}://{bucket}/{self._prefix}")
        if self._prefix and any(part in {"", ".", ".."} for part in self._prefix.split("/")):
            raise DownloadError(
                f"{self.display} has an empty part, '.' or '..' in its key, which the store's client cannot request; "
                "copy the model to another key"
            )
        self._kind = kind
        self._bucket = bucket
        self._settings = settings
        self._store: Any = None
        self._single = False
        self._client = HttpClient(settings)

    @property
    def kind(self) -> str:
        """The kind of store."""
        return self._kind

    def listing(self) -> Listing:
        """Return the objects below the prefix, or the single object with that key."""
        import obstore

        try:
            found = self._complete(self._list())
            if self._prefix and not any(each["path"] != self._prefix for each in found):
                found = [dict(obstore.head(self._connected(), self._prefix))]
                self._single = True
            else:
                found = self._without_markers(found)
        except Exception as error:  # noqa: BLE001  # obstore raises its own errors, and built-in ones
            config = None
            if self._prefix and is_denied(error):
                return Listing(files=(self._file(self._head(error)),), single=True)
            if self._kind == "s3" and _BAD_PATH.search(str(error)):
                config = signing_config(self._connected().config)
            if config is None:
                raise self.error_of(error) from None
            found = self._list_all_keys(config)
        if not found:
            raise DownloadError(f"there is nothing at {self.display}; check the bucket's name")
        files = [self._file(each) for each in found]
        return Listing(
            files=tuple(file for file in files if is_remote_name(file.name)),
            single=self._single,
            skipped=tuple(file.name for file in files if not is_remote_name(file.name)),
        )

    def open(self, file: RemoteFile, start: int, validator: str | None) -> StreamBody:
        """Request an object."""
        if start and validator != file.validator:
            start = 0
        blocks = self._blocks(file, start)
        return StreamBody(blocks, start=start, size=file.size, validator=file.validator)

    def close(self) -> None:
        """Release the store and its connections."""
        self._store = None
        self._client.close()

    def error_of(self, error: Exception) -> Exception:
        """Return the error to raise for an error of obstore: a TransferError if a retry may succeed."""
        from obstore.exceptions import PreconditionError

        if isinstance(error, DownloadError | TransferError):
            return error
        text = str(error)
        line = text.partition("\n")[0]
        matched = STATUS.search(line)
        status = int(matched["status"] or matched["reason"]) if matched else 0
        hopeless = 300 <= status < 500 and status not in _RETRYABLE
        if _CREDENTIALS.search(line):
            kind = DownloadError if hopeless else TransferError
            return kind(
                f"no credentials were found ({first_line(error)}); they come from {HINTS[self._kind]}, or from the cloud "
                f"this machine is in{unsupported_profile() if self._kind == 's3' else ''}"
            )
        if (untrusted := _UNTRUSTED.search(text)) is not None:
            return DownloadError(
                f"the certificate of the store of {self.display} is not trusted ({untrusted[1]}); name its authority in "
                f"{'AWS_CA_BUNDLE' if self._kind == 's3' else 'SSL_CERT_FILE'}"
            )
        if (bad := _BAD_PATH.search(line)) is not None:
            key = redact(bad["key"] or bad["other"] or first_line(error))
            return DownloadError(
                f"{self.display} has the key {key!r}, which is not a file name, and the store's client cannot list it; "
                "delete or rename it, or copy the model to another prefix"
            )
        code, stated = statement(text)
        refused = status if LISTING in line else 0
        if code == _ARCHIVED:
            return DownloadError(f"{self.display} is archived{stated}; restore it, or copy it to another storage class")
        if is_denied(error):
            listing = " to its listing, for which s3:ListBucket is needed" if refused and code == "AccessDenied" else ""
            return DownloadError(
                f"{self.display} denies access{listing}{stated}; credentials and endpoint come from {HINTS[self._kind]}"
            )
        if isinstance(error, FileNotFoundError) or refused == 404:
            return DownloadError(f"there is nothing at {self.display}; check the bucket and the prefix")
        if isinstance(error, PreconditionError):
            return CorruptError("it was replaced during the download")
        if hopeless or isinstance(error, NotImplementedError | ValueError) or _HOPELESS.search(line):
            return DownloadError(
                f"{self._kind} failed ({first_line(error)}){stated}; credentials and endpoint come from {HINTS[self._kind]}"
            )
        return TransferError(f"{self._kind} failed ({type(error).__name__}: {first_line(error)})")

    def _head(self, denied: Exception) -> dict[str, Any]:
        """Return the object with the key of the prefix. Users who may not list a bucket may be allowed to read it."""
        import obstore

        self._single = True
        try:
            return dict(obstore.head(self._connected(), self._prefix))
        except Exception:  # noqa: BLE001  # obstore raises its own errors, and built-in ones
            self._single = False
            raise self.error_of(denied) from None

    def _list(self) -> list[dict[str, Any]]:
        import obstore

        pages = obstore.list(self._connected(), prefix=self._prefix or None, chunk_size=1000)
        return [dict(each) for page in pages for each in page]

    def _complete(self, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return a listing, or all objects if the store's client got its first page only.

        A store without ListObjectsV2 names no token for the next page, and ignores the key to begin behind.
        """
        import obstore

        if self._kind != "s3" or len(found) not in _FULL or self._bucket.endswith(_UNORDERED):
            return found
        store, prefix = self._connected(), self._prefix or None
        last = max(each["path"] for each in found)
        while rest := [dict(each) for page in obstore.list(store, prefix=prefix, offset=last) for each in page]:
            if any(each["path"] <= last for each in rest):
                return self._list_older()
            found, last = found + rest, max(each["path"] for each in rest)
        return found

    def _list_older(self) -> list[dict[str, Any]]:
        if (config := signing_config(self._connected().config)) is None:
            raise DownloadError(
                f"the store of {self.display} lists a part of it only, as it does not support ListObjectsV2; set an access key, "
                "with which phasebus requests the rest"
            )
        return self._list_all_keys(config)

    def _list_all_keys(self, config: dict[str, str]) -> list[dict[str, Any]]:
        """Return all objects, including those with keys that obstore rejects, without the markers of folders."""
        try:
            found = list_keys(self._client, config, self._bucket, self._prefix)
        except StatusError as error:
            raise error_of_status(error) from None
        return [each for each in found if not each["path"].endswith("/")]

    def _blocks(self, file: RemoteFile, at: int) -> Iterator[bytes]:
        size = file.size or 0
        while at < size:
            end = min(at + PIECE, size)
            for block in self._piece(file, at, end):
                at += len(block)
                yield block
                if at == end:
                    break  # one more read would cost as much again
            if at != end:
                raise TransferError(f"the store sent the bytes up to {at}, requested were those up to {end}")

    def _piece(self, file: RemoteFile, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes of an object from `start` up to, not including, `end`."""
        import obstore

        options: dict[str, Any] = {"range": (start, end)}
        if file.validator is not None:
            options["if_match"] = file.validator
        try:
            result = obstore.get(self._connected(), self._key(file), options=options)
            yield from result.stream(min_chunk_size=BLOCK)
        except Exception as error:  # noqa: BLE001  # obstore raises its own errors, and built-in ones
            raise self.error_of(error) from None

    def _without_markers(self, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the objects without markers of folders: empty objects with a key that ends in a slash.

        obstore removes the slash. So an empty object is a marker if there are objects below it, or if no object has its key
        without a slash.
        """
        import obstore

        folders = {
            each["path"].rsplit("/", number)[0] for each in found for number in range(1, each["path"].count("/") + 1)
        }
        kept = {each["path"]: each for each in found if each["size"]}
        for each in found:
            path = each["path"]
            if path in kept or path in folders or path == self._prefix:
                continue
            try:
                obstore.head(self._connected(), path)
            except FileNotFoundError:
                continue
            kept[path] = each
        return list(kept.values())

    def _file(self, each: dict[str, Any]) -> RemoteFile:
        path: str = each["path"]
        name = path.rpartition("/")[2] if self._single else path[len(self._prefix) :].removeprefix("/")
        return RemoteFile(name=name, size=each["size"], validator=each["e_tag"])

    def _key(self, file: RemoteFile) -> str:
        return self._prefix if self._single else "/".join(filter(None, (self._prefix, file.name)))

    def _connected(self) -> Any:
        if self._store is None:
            longest = self._settings.stall_seconds + PIECE / _SLOWEST
            self._store = connect(self._kind, self._bucket, self._settings, longest)
        return self._store
