"""Fetching files over HTTP: the one engine behind ``hf://`` and ``https://``.

Redirects are followed here and not by the client, for two reasons: credentials must not go along to another host, and
the client would log the address, which often is a signed one. Ranges and validators are those of RFC 9110, 13 and 14.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError, SSLError
from urllib3.response import BaseHTTPResponse

from phasebus.initializer.downloads.errors import DownloadError, TransferError
from phasebus.initializer.downloads.settings import DownloadSettings
from phasebus.initializer.downloads.sources.protocol import BLOCK
from phasebus.telemetry.redaction import redact

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS: Final = 10
_WORTH_RETRYING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_PERSONAL: Final = frozenset({"authorization", "cookie", "proxy-authorization"})
_CONTENT_RANGE: Final = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


class _Redacting(logging.Filter):
    """Keeps signed addresses out of what the HTTP client logs when somebody turns its debug messages on."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask secrets in a record, and let it through."""
        record.msg, record.args = redact(record.getMessage()), ()
        return True


class HttpClient:
    """Connections to servers, kept for further requests. May be used by many threads.

    Args:
        settings: How long to wait for what, and how many connections to keep.
    """

    def __init__(self, settings: DownloadSettings) -> None:
        self._settings = settings
        self._timeout = urllib3.Timeout(connect=settings.connect_seconds, read=settings.stall_seconds)
        self._pools: dict[tuple[str, str], urllib3.PoolManager] = {}
        logger = logging.getLogger("urllib3.connectionpool")
        if not any(isinstance(each, _Redacting) for each in logger.filters):
            logger.addFilter(_Redacting())

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
        response, redirected = self._request(url, asked)
        if response.status in {200, 206, 416}:
            return HttpBody(response, start, self._settings.stall_seconds)
        host = urlsplit(url).hostname
        with contextlib.closing(response):
            raise refusal(response.status, response.headers, f"{host}", signed=redirected)

    def size(self, url: str, headers: Mapping[str, str]) -> tuple[int | None, str | None]:
        """Return the size in bytes of the file at `url`, and its validator; None for either if the server does not say.

        One byte is asked for: unlike a HEAD request, that works with addresses that are signed for reading.
        """
        body = self.open(url, {**headers, "Range": "bytes=0-0"})
        try:
            return body.size, body.validator
        finally:
            body.close()

    def read(self, url: str, headers: Mapping[str, str], limit: int) -> bytes:
        """Return the small file at `url`, of `limit` bytes at most; errors as in `open`."""
        body = self.open(url, headers)
        with contextlib.closing(body):
            content = bytearray()
            for block in body.blocks():
                content += block
                if len(content) > limit:
                    raise DownloadError(f"{redact(url)} is longer than the {limit} bytes expected of it")
            return bytes(content)

    def close(self) -> None:
        """Close the connections."""
        for pool in self._pools.values():
            pool.clear()

    def _request(self, url: str, headers: dict[str, str]) -> tuple[BaseHTTPResponse, bool]:
        """Return the answer to a GET request, redirects followed, and whether another host gave it."""
        redirected = False
        for _ in range(_MOST_REDIRECTS):
            host = urlsplit(url).hostname or ""
            try:
                response = self._pool(url).request(
                    "GET",
                    url,
                    headers=headers,
                    timeout=self._timeout,
                    retries=False,
                    redirect=False,
                    preload_content=False,
                )
            except HTTPError as error:
                raise self._failure(error, host) from None
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or location is None:
                return response, redirected
            try:
                response.drain_conn()
            finally:
                response.release_conn()
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

    def _pool(self, url: str) -> urllib3.PoolManager:
        """Return the connections for `url`: through a proxy, if the environment names one for it."""
        parts = urlsplit(url)
        where = parts.scheme, parts.netloc
        if (pool := self._pools.get(where)) is None:
            proxy = None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
            certificates = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
            size = self._settings.concurrency
            pool = self._pools[where] = (
                urllib3.PoolManager(maxsize=size, ca_certs=certificates)
                if proxy is None
                else urllib3.ProxyManager(proxy, maxsize=size, ca_certs=certificates)
            )
        return pool

    def _failure(self, error: HTTPError, host: str) -> Exception:
        if isinstance(error, SSLError):
            return DownloadError(
                f"{host} cannot be trusted: {redact(str(error))}; if it has a certificate of your own authority, name that "
                "in SSL_CERT_FILE"
            )
        if isinstance(error, ReadTimeoutError):
            return TransferError(f"{host} did not answer for {self._settings.stall_seconds:g} s")
        return TransferError(f"{host} cannot be reached ({type(error).__name__})")


class HttpBody:
    """The bytes of an answer; see `Body`."""

    def __init__(self, response: BaseHTTPResponse, start: int, stall: float) -> None:
        self._response = response
        self._stall = stall
        self._stopped = False
        tag = response.headers.get("ETag")
        self.validator = tag if tag is not None and not tag.startswith("W/") else None
        length = response.headers.get("Content-Length", "")
        self.start, self.size, self._expected = 0, None, None
        if response.status == 200:
            self.size = self._expected = int(length) if length.isdigit() else None
        elif (matched := _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))) is None:
            self.close()
            raise TransferError(f"the server answered {response.status} without saying which bytes it sends")
        else:
            first, last, size = matched.groups()
            self.size = None if size == "*" else int(size)
            if response.status == 416:
                self.start, self._expected = (start, 0) if self.size == start else (0, None)
            else:
                self.start = int(first or 0)
                self._expected = int(last or 0) - self.start + 1
        if (response.status == 416 and self._expected is None) or (response.status == 206 and self.start != start):
            self.close()
            raise TransferError(f"asked for the bytes from {start} on, the server answered with others")

    def blocks(self) -> Iterator[bytes]:
        """Return the bytes in order."""
        if self._response.status == 416:
            return
        got = 0
        try:
            while block := self._response.read(BLOCK, decode_content=False):
                got += len(block)
                yield block
        except ReadTimeoutError:
            raise TransferError(f"no byte came for {self._stall:g} s") from None
        except (ProtocolError, HTTPError, OSError) as error:
            raise TransferError(f"the connection broke ({type(error).__name__})") from None
        if self._expected is not None and got != self._expected:
            raise TransferError(f"the connection ended after {got} of {self._expected} bytes")

    def stop(self) -> None:
        """End the reading, from any thread."""
        # the reader may be done with the connection, or not yet have it: then there is nothing to end
        with contextlib.suppress(ValueError, RuntimeError, OSError):
            self._response.shutdown()

    def close(self) -> None:
        """Close the connection, unless all was read and it went back to the others."""
        self._response.close()


def refusal(status: int, headers: Mapping[str, str], who: str, *, signed: bool = False) -> Exception:
    """Return the error for an answer with an HTTP `status` that brings no file.

    Args:
        status: The status.
        headers: The answer's headers.
        who: Who answered, for the message.
        signed: Whether the address was one somebody else had signed: it may have run out, and a new one be had.
    """
    if status in _WORTH_RETRYING or (signed and status in {400, 401, 403}):
        return TransferError(f"{who} answered {status}", _retry_after(headers.get("Retry-After", "")))
    if status in {401, 403}:
        return DownloadError(f"{who} refuses access (HTTP {status}); give credentials that may read it")
    if status in {404, 410}:
        return DownloadError(f"{who} has no such file (HTTP {status})")
    return DownloadError(f"{who} answered {status}, which is not worth trying again")


def _retry_after(value: str) -> float | None:
    """Return the seconds of a Retry-After header, which may also be a date; None if it is neither."""
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
