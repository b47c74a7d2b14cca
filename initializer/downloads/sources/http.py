"""Fetching files over HTTP: the one engine behind ``hf://`` and ``https://``.

Redirects are followed here, so that credentials do not go along to another host, and nobody logs the address, which often
is a signed one. Ranges and validators are those of RFC 9110, 13 and 14.
"""

from __future__ import annotations

import contextlib
import re
import ssl
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Final
from urllib.parse import urljoin, urlsplit

from phasebus.initializer.downloads.errors import DownloadError, TransferError
from phasebus.initializer.downloads.settings import DownloadSettings
from phasebus.initializer.downloads.sources.answers import Answer
from phasebus.initializer.downloads.sources.connections import Connections
from phasebus.initializer.downloads.sources.protocol import BLOCK
from phasebus.telemetry.redaction import redact

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS: Final = 10
_PERSONAL: Final = frozenset({"authorization", "cookie", "proxy-authorization"})
_CONTENT_RANGE: Final = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


class HttpClient:
    """Asks servers for files. May be used by many threads.

    Args:
        settings: How long to wait for what.
    """

    def __init__(self, settings: DownloadSettings) -> None:
        self._settings = settings
        self._connections = Connections(settings)

    def open(self, url: str, headers: Mapping[str, str], start: int = 0, validator: str | None = None) -> HttpBody:
        """Ask for the file at `url`, from byte `start` on; for all of it if it no longer is what `validator` tells.

        Raises:
            DownloadError: There is no such file, or it is not for us.
            TransferError: The server could not be asked just now.
        """
        asked = {**headers, "Accept-Encoding": "identity"}
        if start:
            asked["Range"] = f"bytes={start}-"
            if validator is not None:
                asked["If-Range"] = validator
        answer, redirected = self._request(url, asked)
        if answer.status in {200, 206, 416}:
            return HttpBody(answer, start, self._settings.stall_seconds)
        host = urlsplit(url).hostname
        with contextlib.closing(answer):
            raise refusal(answer.status, answer.headers.get("Retry-After"), f"{host}", signed=redirected)

    def size(self, url: str, headers: Mapping[str, str]) -> tuple[int | None, str | None]:
        """Return the size in bytes of the file at `url`, and its validator; None for either if the server does not say.

        One byte is asked for: unlike a HEAD request, that works with addresses that are signed for reading.
        """
        with contextlib.closing(self.open(url, {**headers, "Range": "bytes=0-0"})) as body:
            return body.size, body.validator

    def read(self, url: str, headers: Mapping[str, str], limit: int) -> bytes:
        """Return the small file at `url`, of `limit` bytes at most; errors as in `open`."""
        with contextlib.closing(self.open(url, headers)) as body:
            content, room = bytearray(), memoryview(bytearray(BLOCK))
            while block := body.receive(room):
                content += block
                if len(content) > limit:
                    raise DownloadError(f"{redact(url)} is longer than the {limit} bytes expected of it")
            return bytes(content)

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    def _request(self, url: str, headers: dict[str, str]) -> tuple[Answer, bool]:
        """Return the answer to a GET request, redirects followed, and whether another host gave it."""
        redirected = False
        for _ in range(_MOST_REDIRECTS):
            host = urlsplit(url).hostname or ""
            try:
                answer = self._connections.get(url, headers)
            except (OSError, HTTPException) as error:
                raise self._failure(error, host) from None
            location = answer.headers.get("Location")
            if answer.status not in _REDIRECTS or location is None:
                return answer, redirected
            answer.close()
            target = urljoin(url, location)
            if _origin(target) != _origin(url):
                headers = {key: value for key, value in headers.items() if key.lower() not in _PERSONAL}
                redirected = True
            if urlsplit(target).scheme not in {"http", "https"} or (
                url.startswith("https:") and target[:6] != "https:"
            ):
                raise DownloadError(f"{host} leads to an address that is not https://, which is not followed")
            url = target
        raise TransferError(f"{host} leads from address to address, more than {_MOST_REDIRECTS} times")

    def _failure(self, error: Exception, host: str) -> Exception:
        if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
            return DownloadError(
                f"{host} cannot be trusted: {redact(str(error))}; if it has a certificate of your own authority, name that "
                "in SSL_CERT_FILE"
            )
        if isinstance(error, TimeoutError):
            return TransferError(f"{host} did not answer for {self._settings.stall_seconds:g} s")
        return TransferError(f"{host} cannot be reached ({type(error).__name__})")


class HttpBody:
    """The bytes of an answer; see `Body`."""

    def __init__(self, answer: Answer, start: int, stall: float) -> None:
        self._answer = answer
        self._stall = stall
        self._got = 0
        tag = answer.headers.get("ETag")
        self.validator = tag if tag is not None and not tag.startswith("W/") else None
        length = answer.headers.get("Content-Length", "")
        self.start, self.size, self._expected = 0, None, None
        if answer.status == 200:
            self.size = self._expected = int(length) if length.isdigit() else None
        elif (matched := _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))) is None:
            self.close()
            raise TransferError(f"the server answered {answer.status} without saying which bytes it sends")
        else:
            first, last, size = matched.groups()
            self.size = None if size == "*" else int(size)
            if answer.status == 416:
                self.start, self._expected = (start, 0) if self.size == start else (0, None)
            else:
                self.start = int(first or 0)
                self._expected = int(last or 0) - self.start + 1
        if (answer.status == 416 and self._expected is None) or (answer.status == 206 and self.start != start):
            self.close()
            raise TransferError(f"asked for the bytes from {start} on, the server answered with others")

    def receive(self, room: memoryview) -> memoryview:
        """Return the next bytes, which are in `room`; none at the end."""
        if self._answer.status == 416:
            return room[:0]
        try:
            got = self._answer.receive(room)
        except TimeoutError:
            raise TransferError(f"no byte came for {self._stall:g} s") from None
        except (OSError, HTTPException) as error:
            raise TransferError(f"the connection broke ({type(error).__name__})") from None
        self._got += got
        if not got and self._expected is not None and self._got != self._expected:
            raise TransferError(f"the connection ended after {self._got} of {self._expected} bytes")
        return room[:got]

    def stop(self) -> None:
        """End the reading, from any thread."""
        self._answer.stop()

    def close(self) -> None:
        """Close the connection, unless all was read and it goes back to the others."""
        self._answer.close()


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


_WORTH_RETRYING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


def refusal(status: int, retry_after: str | None, who: str, *, signed: bool = False) -> Exception:
    """Return the error for an answer with an HTTP `status` that brings no file.

    Args:
        status: The status.
        retry_after: The answer's Retry-After header.
        who: Who answered, for the message.
        signed: Whether the address was one somebody else had signed: it may have run out, and a new one be had.
    """
    if status in _WORTH_RETRYING or (signed and status in {400, 401, 403}):
        return TransferError(f"{who} answered {status}", _seconds(retry_after or ""))
    if status in {401, 403}:
        return DownloadError(f"{who} refuses access (HTTP {status}); give credentials that may read it")
    if status in {404, 410}:
        return DownloadError(f"{who} has no such file (HTTP {status})")
    return DownloadError(f"{who} answered {status}, which is not worth trying again")


def _seconds(value: str) -> float | None:
    """Return the seconds of a Retry-After header, which may also be a date; None if it is neither."""
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
