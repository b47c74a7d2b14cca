"""Connections to web servers, kept for further requests; through proxies, where the environment names them."""

from __future__ import annotations

import contextlib
import os
import ssl
import threading
from base64 import b64encode
from collections import defaultdict
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPSConnection
from urllib.parse import SplitResult, quote, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from phasebus.initializer.downloads.errors import DownloadError
from phasebus.initializer.downloads.settings import DownloadSettings
from phasebus.initializer.downloads.sources.answers import Answer

_UNTOUCHED = "%/:=&?~+!$,;'@()*[]"
"""What is left as it is in an address that somebody else has put together."""


class ConnectTimeoutError(OSError):
    """Raised when a server took too long to let us connect."""


class Connections:
    """Connections to any number of servers. May be used by many threads.

    Args:
        settings: How long to wait for what.
    """

    def __init__(self, settings: DownloadSettings) -> None:
        self._settings = settings
        self._guard = threading.Lock()
        self._idle: dict[tuple[str, str], list[HTTPConnection]] = defaultdict(list)
        self._proxies: dict[tuple[str, str], SplitResult | None] = {}
        self._trusted: ssl.SSLContext | None = None

    def get(self, url: str, headers: Mapping[str, str]) -> Answer:
        """Ask for `url`. Redirects are not followed.

        Raises:
            OSError, HTTPException: There was no answer.
            DownloadError: The proxy that the environment names cannot be used.
        """
        parts = urlsplit(url)
        key = parts.scheme, parts.netloc
        target = quote(parts._replace(scheme="", netloc="", fragment="").geturl() or "/", safe=_UNTOUCHED)
        proxy = self._proxy(parts)
        if proxy is not None and parts.scheme == "http":
            target = f"http://{parts.netloc}{target}"
            headers = {**headers, **_credentials(proxy)}
        while (connection := self._kept(key)) is not None:
            # the server may have closed it meanwhile, which says nothing about others
            with contextlib.suppress(ConnectionError):
                return self._ask(key, connection, target, headers)
        return self._ask(key, self._connected(parts, proxy), target, headers)

    def close(self) -> None:
        """Close those that nobody uses."""
        with self._guard:
            for connection in (each for kept in self._idle.values() for each in kept):
                connection.close()
            self._idle.clear()

    def _ask(self, key: tuple[str, str], connection: HTTPConnection, target: str, headers: Mapping[str, str]) -> Answer:
        try:
            connection.request("GET", target, headers=headers)
            return Answer(connection, lambda free: self._keep(key, free))
        except BaseException:
            connection.close()
            raise

    def _keep(self, key: tuple[str, str], connection: HTTPConnection) -> None:
        with self._guard:
            self._idle[key].append(connection)

    def _kept(self, key: tuple[str, str]) -> HTTPConnection | None:
        with self._guard:
            return self._idle[key].pop() if self._idle[key] else None

    def _connected(self, parts: SplitResult, proxy: SplitResult | None) -> HTTPConnection:
        """Return a new connection for `parts`, through a proxy if there is one."""
        way, seconds = proxy or parts, self._settings.connect_seconds
        connection: HTTPConnection
        if parts.scheme == "https":
            connection = HTTPSConnection(f"{way.hostname}", way.port, timeout=seconds, context=self._trust())
            if proxy is not None:
                connection.set_tunnel(f"{parts.hostname}", parts.port or 443, headers=_credentials(proxy))
        else:
            connection = HTTPConnection(f"{way.hostname}", way.port, timeout=seconds)
        try:
            connection.connect()
        except BaseException as error:
            connection.close()
            if isinstance(error, TimeoutError):
                raise ConnectTimeoutError from None
            raise
        connection.sock.settimeout(self._settings.stall_seconds)
        return connection

    def _proxy(self, parts: SplitResult) -> SplitResult | None:
        """Return the proxy that the environment names for an address; None without."""
        key = parts.scheme, parts.netloc
        if key not in self._proxies:
            named = None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
            proxy = None if named is None else urlsplit(named if "://" in named else f"http://{named}")
            if proxy is not None and (proxy.scheme != "http" or proxy.hostname is None):
                raise DownloadError(
                    f"the environment names a proxy for {parts.scheme}:// that has no http:// address; name one that has"
                )
            self._proxies[key] = proxy
        return self._proxies[key]

    def _trust(self) -> ssl.SSLContext:
        with self._guard:
            if self._trusted is None:
                authorities = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
                self._trusted = ssl.create_default_context(cafile=authorities)
            return self._trusted


def _credentials(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    plain = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(plain.encode()).decode()}"}
