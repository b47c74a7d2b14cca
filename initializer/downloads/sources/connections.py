"""Connections to web servers: reused for further requests, and made through a proxy if the environment names one."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPSConnection
from typing import Any, cast
from urllib.parse import SplitResult, quote, urlsplit

from phasebus.initializer.downloads.settings import DownloadSettings
from phasebus.initializer.downloads.sources.authorities import trusted_authorities
from phasebus.initializer.downloads.sources.responses import Response
from phasebus.initializer.downloads.sources.tunnels import SOCKS, open_tunnel, proxy_credentials, proxy_of, proxy_port
from phasebus.initializer.downloads.sources.wire import Wire

_KEPT_AS_IS = "%/:=&?~+!$,;'@()*[]"
"""Characters of an address that are not quoted."""


_IDLE_SECONDS = 30.0
"""Time after which a kept connection is not used again, in seconds: NAT and load balancers drop idle ones, some silently."""


class ConnectTimeoutError(OSError):
    """Raised when connecting to a server took too long."""


class ProxyConnectError(OSError):
    """Raised when a proxy cannot be connected to; the message names it."""


class Connections:
    """Connections to any number of servers. For use by many threads at once.

    Args:
        settings: The time limits.

    Attributes:
        trust_problem: What is wrong with the variables for certificate authorities; empty if nothing is known.
    """

    def __init__(self, settings: DownloadSettings) -> None:
        self._settings = settings
        self._guard = threading.Lock()
        self._closed = False
        self._open: set[Wire] = set()
        self._idle: dict[tuple[str, str], list[tuple[float, HTTPConnection]]] = defaultdict(list)
        # where IPv6 leads nowhere, only the first connection waits for it
        self._silent: set[tuple[Any, ...]] = set()
        self._proxies: dict[tuple[str, str], SplitResult | None] = {}
        self._trust: ssl.SSLContext | None = None
        self.trust_problem = ""

    def get(self, url: str, headers: Mapping[str, str]) -> Response:
        """Send a GET request for `url`, without following redirects.

        Raises:
            OSError, HTTPException: The request failed without a response.
            ValueError: The address or a header is malformed.
            DownloadError: The proxy that the environment names cannot be used.
        """
        parts = urlsplit(url)
        key = parts.scheme, parts.netloc
        target = quote(parts._replace(scheme="", netloc="", fragment="").geturl() or "/", safe=_KEPT_AS_IS)
        proxy = self._proxy(parts)
        if proxy is not None and parts.scheme == "http" and proxy.scheme not in SOCKS:
            target = f"http://{parts.netloc}{target}"
            headers = {**headers, **proxy_credentials(proxy)}
        while (connection := self._take_idle(key)) is not None:
            # the server may have closed an idle connection; then the next one is used
            with contextlib.suppress(ConnectionError):
                return self._request(key, connection, target, headers)
        return self._request(key, self._connect(parts, proxy), target, headers)

    def close(self) -> None:
        """Abort every connection, including those in use. Called from any thread, possibly twice."""
        with self._guard:
            self._closed = True
            idle = [each for kept in self._idle.values() for _, each in kept]
            self._idle.clear()
            for wire in self._open:
                wire.abort()
        for connection in idle:
            connection.close()

    def _request(
        self, key: tuple[str, str], connection: HTTPConnection, target: str, headers: Mapping[str, str]
    ) -> Response:
        try:
            connection.request("GET", target, headers=headers)
            return Response(connection, cast("Wire", connection.sock), lambda free: self._keep(key, free))
        except BaseException:
            connection.close()
            raise

    def _keep(self, key: tuple[str, str], connection: HTTPConnection) -> None:
        with self._guard:
            if not self._closed:
                self._idle[key].append((time.monotonic(), connection))
                return
        connection.close()

    def _take_idle(self, key: tuple[str, str]) -> HTTPConnection | None:
        """Return the connection that was kept last; None without one. If that is too old, all of them are closed."""
        with self._guard:
            kept = self._idle[key]
            if kept and time.monotonic() - kept[-1][0] < _IDLE_SECONDS:
                return kept.pop()[1]
            self._idle[key] = []
        for _, connection in kept:
            connection.close()
        return None

    def _connect(self, parts: SplitResult, proxy: SplitResult | None) -> HTTPConnection:
        """Return a new connection for `parts`, through a proxy if there is one."""
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        wire = self._dial(host, port) if proxy is None else self._dial_proxy(proxy)
        connection: HTTPConnection
        try:
            if proxy is not None and (parts.scheme == "https" or proxy.scheme in SOCKS):
                open_tunnel(wire, proxy, host, port)
            if parts.scheme == "https":
                wire.start_tls(self._trusted_authorities(), host)
                connection = HTTPSConnection(host, parts.port)
            else:
                connection = HTTPConnection(host, parts.port)
        except BaseException:
            wire.close()
            raise
        connection.sock = cast("Any", wire)
        return connection

    def _dial_proxy(self, proxy: SplitResult) -> Wire:
        host, port = proxy.hostname or "", proxy_port(proxy)
        try:
            return self._dial(host, port)
        except OSError as error:
            raise ProxyConnectError(f"the proxy {host}:{port} ({type(error).__name__})") from error

    def _dial(self, host: str, port: int) -> Wire:
        """Return a connection to the first address of `host` that accepts one."""
        failure: OSError = OSError(f"{host} has no address")
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for family, *_, address in sorted(addresses, key=lambda each: each[-1] in self._silent):
            wire = Wire(family, self._settings.stall_seconds, self._forget)
            try:
                self._remember(wire)
                wire.connect(address, self._settings.connect_seconds)
            except TimeoutError:
                wire.close()
                self._silent.add(address)
                failure = ConnectTimeoutError()
            except OSError as error:
                wire.close()
                failure = error
            else:
                return wire
        raise failure

    def _remember(self, wire: Wire) -> None:
        with self._guard:
            if self._closed:
                raise ConnectionAbortedError
            self._open.add(wire)

    def _forget(self, wire: Wire) -> None:
        with self._guard:
            self._open.discard(wire)

    def _proxy(self, parts: SplitResult) -> SplitResult | None:
        key = parts.scheme, parts.netloc
        if key not in self._proxies:
            self._proxies[key] = proxy_of(parts)
        return self._proxies[key]

    def _trusted_authorities(self) -> ssl.SSLContext:
        with self._guard:
            if self._trust is None:
                self._trust, self.trust_problem = trusted_authorities()
            return self._trust
