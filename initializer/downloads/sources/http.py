"""Downloading files over HTTP, for ``hf://`` and ``https://``.

This module follows redirects itself, so that credentials are sent to their host only and no client logs an address, which is
often signed. Ranges and validators: RFC 9110, 13 and 14.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Mapping
from email.message import Message
from http.client import BadStatusLine, HTTPException, InvalidURL, RemoteDisconnected
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

from phasebus.initializer.downloads.errors import DownloadError, TransferError
from phasebus.initializer.downloads.protocol import BLOCK
from phasebus.initializer.downloads.settings import DownloadSettings
from phasebus.initializer.downloads.sources.authorities import certificate_remedy
from phasebus.initializer.downloads.sources.bodies import HttpBody
from phasebus.initializer.downloads.sources.connections import Connections, ProxyConnectError
from phasebus.initializer.downloads.sources.encodings import is_supported
from phasebus.initializer.downloads.sources.headers import (
    content_encoding,
    is_web_page,
    location,
    next_query,
    retry_after,
)
from phasebus.initializer.downloads.sources.nearness import is_nearer
from phasebus.initializer.downloads.sources.responses import Response
from phasebus.initializer.downloads.sources.tunnels import UNAUTHENTICATED
from phasebus.telemetry.redaction import redact

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS: Final = 10
_CREDENTIAL_HEADERS: Final = frozenset({"authorization", "cookie", "proxy-authorization"})
_RETRYABLE: Final = frozenset({408, 425, 429})
_BUSY: Final = frozenset({429, 503})
_PERMANENT: Final = frozenset({501, 505, 511})
"""Statuses of a server's failure that a retry does not change. The others, such as 521 of a proxy, often pass."""


_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "RECORD_LAYER_FAILURE"})
"""OpenSSL's reasons for a peer that sends no TLS records."""


class StatusError(Exception):
    """Raised when a server answers with an error status.

    Args:
        status: The HTTP status.
        headers: The headers of the response.
        host: The server.
        signed: Whether another server signed the address. It may have expired, and a retry gets a new one.
    """

    def __init__(self, status: int, headers: Message, host: str, *, signed: bool) -> None:
        super().__init__(f"{host} answered {status}")
        self.status = status
        self.headers = headers
        self.host = host
        self.signed = signed


class HttpClient:
    """Requests files from servers. For use by many threads at once.

    Args:
        settings: The time limits.
    """

    def __init__(self, settings: DownloadSettings) -> None:
        self._settings = settings
        self._connections = Connections(settings)

    def open(self, url: str, headers: Mapping[str, str], start: int = 0, validator: str | None = None) -> HttpBody:
        """Return the file at `url`, from byte `start` on; from byte 0 if it no longer matches `validator`.

        Raises:
            DownloadError: There is no such file, or access is denied.
            TransferError: The request failed and may succeed when retried.
        """
        try:
            return self.request(url, headers, start, validator)
        except StatusError as error:
            raise error_of_status(error) from None

    def request(self, url: str, headers: Mapping[str, str], start: int = 0, validator: str | None = None) -> HttpBody:
        """Like `open`, with other errors.

        Raises:
            StatusError: The server answers with an error status.
            DownloadError, TransferError: The request failed otherwise.
        """
        sent = {**headers, "Accept-Encoding": "identity"}
        if start:
            sent["Range"] = f"bytes={start}-"
            if validator is not None:
                sent["If-Range"] = validator
        response, redirected = self._follow(url, sent)
        try:
            if response.status not in {200, 206, 416}:
                host = urlsplit(url).hostname or ""
                raise StatusError(response.status, response.headers, host, signed=redirected)
            if response.status != 416:
                _check_content(urlsplit(url), response.headers)
            return HttpBody(response, start, self._settings.stall_seconds)
        except TransferError:
            response.close()
            if not start:
                raise
            return self.request(url, headers)  # the rest cannot be had, also not from a retry
        except BaseException:
            response.close()
            raise

    def size(self, url: str, headers: Mapping[str, str]) -> tuple[int | None, str | None]:
        """Return the size in bytes of the file at `url`, and its validator; each is None if unknown.

        This requests one byte, because a HEAD request does not work with an address that is signed for reading.
        """
        with contextlib.closing(self.open(url, {**headers, "Range": "bytes=0-0"})) as body:
            return body.size, body.validator

    def read(self, url: str, headers: Mapping[str, str], limit: int) -> bytes:
        """Return the content of a small file at `url`, of `limit` bytes at most; raises the errors of `request`."""
        return self.read_page(url, headers, limit)[0]

    def read_page(self, url: str, headers: Mapping[str, str], limit: int) -> tuple[bytes, str | None]:
        """Like `read`, with the query of the address of the next page; None at the last one."""
        with contextlib.closing(self.request(url, headers)) as body:
            content, room = bytearray(), memoryview(bytearray(BLOCK))
            while block := body.receive(room):
                content += block
                if len(content) > limit:
                    raise DownloadError(f"{redact(url)} is longer than the {limit} bytes expected of it")
            return bytes(content), next_query(body.headers)

    def close(self) -> None:
        """Abort running requests and close the connections. Called from any thread, possibly twice."""
        self._connections.close()

    def _follow(self, url: str, headers: dict[str, str]) -> tuple[Response, bool]:
        """Follow redirects; return the response to a GET request, and whether another origin sent it."""
        redirected = False
        for _ in range(_MAX_REDIRECTS):
            host = urlsplit(url).hostname or ""
            try:
                response = self._connections.get(url, headers)
                target = location(response.headers)
                if response.status not in _REDIRECTS or target is None:
                    return response, redirected
                response.close()
                target = urljoin(url, target)
                same_origin = _origin(target) in {_origin(url), _encrypted_origin(url)}
            except (OSError, HTTPException) as error:
                raise self._connection_error(error, host, urlsplit(url).scheme) from None
            except ValueError:
                raise DownloadError(f"an address or a header of {host or 'the request'} is malformed") from None
            if not same_origin:
                headers = {key: value for key, value in headers.items() if key.lower() not in _CREDENTIAL_HEADERS}
                redirected = True
            if urlsplit(target).scheme not in {"http", "https"} or (
                url.startswith("https:") and target[:6] != "https:"
            ):
                raise DownloadError(f"{host} redirects to an address that is not https://, which is not followed")
            if is_nearer(urlsplit(target).hostname or "", host):
                raise DownloadError(f"{host} redirects to an address of this machine, which is not followed")
            url = target
        raise DownloadError(f"{host} redirects more than {_MAX_REDIRECTS} times")

    def _connection_error(self, error: Exception, host: str, scheme: str) -> Exception:
        if isinstance(error, ssl.SSLCertVerificationError):
            remedy = self._connections.trust_problem or certificate_remedy(error.verify_code)
            return DownloadError(f"the TLS connection to {host} failed: {redact(str(error))}; {redact(remedy)}")
        if isinstance(error, ssl.SSLError) and error.reason in _NO_TLS:
            return DownloadError(
                f"{host} answers without TLS; write http:// in its address, or check its port and the proxy that leads there"
            )
        if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return TransferError(f"the TLS connection to {host} failed: {redact(str(error))}")
        if isinstance(error, BadStatusLine):
            cause = "it closed the connection" if isinstance(error, RemoteDisconnected) else "its response is not HTTP"
            remedy = "; if it expects TLS, write https://" if scheme == "http" else ""
            return TransferError(f"cannot connect to {host}: {cause}{remedy}")
        if isinstance(error, InvalidURL):
            return DownloadError(f"the address of {host} is malformed")
        if isinstance(error, ProxyConnectError):
            return TransferError(f"cannot connect to {error}, which the environment names for {host}")
        if isinstance(error, TimeoutError):
            return TransferError(f"{host} did not answer for {self._settings.stall_seconds:g} s")
        return TransferError(f"cannot connect to {host}: {_cause(error)}")


def _cause(error: Exception) -> str:
    """Return why a connection failed: in the system's words if it has any, else the class of the error."""
    if isinstance(error, socket.gaierror):
        return "its name cannot be resolved"
    return error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__


def error_of_status(error: StatusError) -> Exception:
    """Return the error to raise for an error status: a TransferError if it may succeed when retried."""
    host, status = error.host, error.status
    passing = status in _RETRYABLE or (status >= 500 and status not in _PERMANENT)
    if passing or (error.signed and status in {400, 401, 403}):
        pause = retry_after(error.headers, is_limited=status == 429)
        return TransferError(f"{host} answered {status}", pause, is_busy=status in _BUSY)
    if status == 407:
        return DownloadError(f"the proxy refuses to connect to {host} (HTTP 407): it {UNAUTHENTICATED}")
    if status in {401, 403}:
        return DownloadError(f"{host} denies access (HTTP {status}); give credentials that may read it")
    if status in {404, 410}:
        return DownloadError(f"{host} has no such file (HTTP {status})")
    return DownloadError(f"{host} answered {status}, which a retry does not change")


def _check_content(address: SplitResult, headers: Message) -> None:
    """Reject a body that is not the content of the file.

    Raises:
        DownloadError: It is a web page, or in an encoding that is not supported.
    """
    name = address.path.rpartition("/")[2]
    if is_web_page(headers) and not name.endswith((".html", ".htm")):
        remedy = (
            "this is the address of the file's page: write /resolve/ in place of /blob/"
            if "/blob/" in address.path
            else "it may ask for a login: give credentials, or the address of the file itself"
        )
        raise DownloadError(f"{address.hostname} answered with a web page in place of {name!r}; {remedy}")
    if (encoding := content_encoding(headers)) is not None and not is_supported(encoding):
        raise DownloadError(
            f"{address.hostname} sends {name!r} in the encoding {encoding!r}, although identity was requested; "
            "switch off compression for it on the server"
        )


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _encrypted_origin(url: str) -> tuple[str, str | None, int | None] | None:
    """Return the origin that an address without TLS has with TLS; None with a port of its own."""
    scheme, host, port = _origin(url)
    return ("https", host, 443) if (scheme, port) == ("http", 80) else None
