"""Proxies: their addresses, and the tunnels through them.

Sources: RFC 9110, 9.3.6 (CONNECT); RFC 1928 and RFC 1929 (SOCKS5, with a user and password).
"""

from __future__ import annotations

import ipaddress
from http.client import HTTPResponse
from typing import Any, Final, cast
from urllib.parse import SplitResult, unquote, urlsplit

from phasebus.initializer.downloads.errors import DownloadError, TransferError
from phasebus.initializer.downloads.sources.headers import basic_credentials
from phasebus.initializer.downloads.sources.wire import Wire
from phasebus.printable import address_text
from phasebus.telemetry.proxies import proxy_for

SOCKS: Final = frozenset({"socks5", "socks5h"})
"""The schemes of SOCKS5 proxies; here, either makes the proxy resolve the names of hosts."""

UNAUTHENTICATED: Final = "requires a user and password, or rejects those that it got; name them in its address: http://user:password@host:port"
"""The end of a message about a proxy that answers with the status 407."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_NO_PASSWORD, _PASSWORD = 0, 2
_SOCKS_REPLIES: Final = {3: "network unreachable", 4: "host unreachable", 5: "connection refused"}


def proxy_of(parts: SplitResult) -> SplitResult | None:
    """Return the address of the proxy that leads to `parts`; None without one.

    Raises:
        DownloadError: It is a kind of proxy that is not supported.
    """
    named = proxy_for(parts.scheme, parts.hostname or "", parts.port or _DEFAULT_PORTS.get(parts.scheme, 0))
    if named is None:
        return None
    try:
        proxy = urlsplit(named if "://" in named else f"http://{named}")
        is_cut = "@" in f"{proxy.path}{proxy.query}{proxy.fragment}" or proxy.port == 0
    except ValueError:
        is_cut = True
    if is_cut:
        raise DownloadError(
            f"the address of the proxy that the environment names for {parts.scheme}:// is malformed; write '/', '#', '?' and "
            "'@' in its password as %2F, %23, %3F and %40"
        )
    if proxy.scheme not in {"http", *SOCKS} or proxy.hostname is None:
        raise DownloadError(
            f"the environment names a proxy for {parts.scheme}:// that has no http:// or socks5:// address; name one that "
            "has"
        )
    return proxy


def proxy_port(proxy: SplitResult) -> int:
    """Return the port of a proxy; the default of its scheme if it names none."""
    return proxy.port or (1080 if proxy.scheme in SOCKS else 80)


def proxy_credentials(proxy: SplitResult) -> dict[str, str]:
    """Return the header with the user and password of an HTTP proxy; empty without them."""
    return basic_credentials(proxy, "Proxy-Authorization")


def open_tunnel(wire: Wire, proxy: SplitResult, host: str, port: int) -> None:
    """Request a tunnel to a host from the proxy that `wire` is connected to.

    Raises:
        DownloadError: The proxy rejects the host, or the user and password.
        TransferError: The proxy cannot connect to the host.
        OSError, HTTPException: The request failed.
    """
    if proxy.scheme in SOCKS:
        _open_socks_tunnel(wire, proxy, host, port)
    else:
        _open_http_tunnel(wire, proxy, host, port)


def _unconnected(proxy: SplitResult, host: str, answer: str) -> TransferError:
    address = address_text(proxy.hostname or "", proxy_port(proxy))
    return TransferError(f"the proxy {address}, which the environment names for {host}, cannot connect to it: {answer}")


def _open_http_tunnel(wire: Wire, proxy: SplitResult, host: str, port: int) -> None:
    target = address_text(host, port)
    headers = {"Host": target, **proxy_credentials(proxy)}
    lines = [f"CONNECT {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    wire.expect_head()
    wire.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
    response = HTTPResponse(cast("Any", wire), method="CONNECT")
    try:
        response.begin()
    finally:
        response.close()
    if response.status == 407:
        raise DownloadError(f"the proxy refuses to connect to {host} (HTTP 407): it {UNAUTHENTICATED}")
    if response.status in {401, 403}:
        raise DownloadError(
            f"the proxy refuses to connect to {host} (HTTP {response.status}); check its user and password"
        )
    if response.status != 200:
        raise _unconnected(proxy, host, str(response.status))


def _open_socks_tunnel(wire: Wire, proxy: SplitResult, host: str, port: int) -> None:
    user, password = (unquote(text or "").encode()[:255] for text in (proxy.username, proxy.password))
    wire.expect_head()
    method = _PASSWORD if user else _NO_PASSWORD
    wire.sendall(bytes([5, 1, method]))
    if _receive(wire, 2) != bytes([5, method]):
        raise DownloadError("the proxy accepts no SOCKS5 connection of this kind; check its user and password")
    if user:
        wire.sendall(bytes([1, len(user), *user, len(password), *password]))
        if _receive(wire, 2)[1] != 0:
            raise DownloadError("the proxy rejects its user and password")
    wire.sendall(bytes([5, 1, 0, *_socks_address(host), *port.to_bytes(2, "big")]))
    _, reply, _, kind = _receive(wire, 4)
    if reply == 2:
        raise DownloadError(f"the proxy refuses to connect to {host}")
    if reply != 0:
        raise _unconnected(proxy, host, _SOCKS_REPLIES.get(reply, str(reply)))
    _receive(wire, {1: 4, 4: 16}.get(kind) or _receive(wire, 1)[0])
    _receive(wire, 2)


def _socks_address(host: str) -> bytes:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.encode("idna")[:255]
        return bytes([3, len(name), *name])
    return bytes([1 if address.version == 4 else 4]) + address.packed


def _receive(wire: Wire, count: int) -> bytes:
    """Receive exactly `count` bytes, so that none of the following ones are lost."""
    received = b""
    while len(received) < count:
        room = bytearray(count - len(received))
        if not (length := wire.receive_into(room)):
            raise ConnectionResetError
        received += room[:length]
    return received
