from __future__ import annotations

import io
import socket
from email.message import Message
from typing import Any, cast
from urllib.parse import urlsplit

import pytest

from phasebus.initializer.downloads import DownloadError, DownloadSettings
from phasebus.initializer.downloads.errors import TransferError
from phasebus.initializer.downloads.sources import tunnels as tunnels_module
from phasebus.initializer.downloads.sources.http import HttpClient, StatusError, error_of_status
from phasebus.initializer.downloads.sources.tunnels import open_tunnel, proxy_of
from phasebus.initializer.downloads.sources.wire import Wire

CONNECTED = bytes([5, 0, 0, 1, 0, 0, 0, 0, 0, 0])


class RecordedWire:
    """A connection to a proxy that answers with the given bytes."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.sent: list[bytes] = []

    def expect_head(self) -> None:
        pass

    def makefile(self, _: str) -> io.BytesIO:
        return io.BytesIO(self.answer)

    def sendall(self, data: bytes) -> None:
        self.sent.append(data)

    def receive_into(self, room: Any) -> int:
        count = min(len(room), 3, len(self.answer))  # in small pieces, as a network may deliver them
        room[:count], self.answer = self.answer[:count], self.answer[count:]
        return count


def open_through(proxy: str, answer: bytes, host: str = "hub.example") -> RecordedWire:
    wire = RecordedWire(answer)
    open_tunnel(cast("Wire", wire), urlsplit(proxy), host, 443)
    return wire


def test_socks_tunnel_names_the_host_and_leaves_the_following_bytes() -> None:
    wire = open_through("socks5h://proxy", bytes([5, 0]) + CONNECTED + b"TLS")
    assert wire.sent == [bytes([5, 1, 0]), b"\x05\x01\x00\x03\x0bhub.example\x01\xbb"]
    assert wire.answer == b"TLS"


def test_socks_tunnel_authenticates_with_user_and_password() -> None:
    wire = open_through("socks5://me:p%40ss@proxy", bytes([5, 2, 1, 0]) + CONNECTED)
    assert wire.sent[:2] == [bytes([5, 1, 2]), b"\x01\x02me\x04p@ss"]


@pytest.mark.parametrize(
    ("host", "address"), [("10.1.2.3", b"\x01\n\x01\x02\x03"), ("::1", b"\x04" + bytes(15) + b"\1")]
)
def test_socks_tunnel_to_an_address_is_binary(host: str, address: bytes) -> None:
    assert open_through("socks5://proxy", bytes([5, 0]) + CONNECTED, host).sent[1][3:-2] == address


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (bytes([5, 255]), DownloadError),
        (bytes([5, 0, 5, 2, 0, 1]), DownloadError),
        (bytes([5, 0, 5, 5, 0, 1]), TransferError),
        (bytes([5, 0, 5]), ConnectionResetError),
        (b"HTTP/1.1 400", DownloadError),
    ],
)
def test_socks_proxy_that_rejects_is_an_error(answer: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        open_through("socks5://proxy", answer)


@pytest.mark.parametrize(
    "named",
    [
        "http://me:p@ss:w#rd@proxy:3128",
        "http://me:12/34@proxy:3128",
        "http://me:12?34@proxy:3128",
        "me:12#34@proxy:3128",
        "http://proxy:port",
    ],
)
def test_address_of_a_proxy_with_unquoted_characters_is_an_error_without_its_password(
    named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnels_module, "proxy_for", lambda *_: named)
    with pytest.raises(
        DownloadError, match="malformed; write '/', '#', '\\?' and '@' in its password as %2F"
    ) as caught:
        proxy_of(urlsplit("https://hub.example"))
    assert not any(part in str(caught.value) for part in ("ss:w", "12", "34", "me:"))


def test_proxy_that_requires_a_password_is_an_error_that_names_the_proxy() -> None:
    with pytest.raises(
        DownloadError, match=r"refuses to connect to hub\.example .*: it requires a user and password, or"
    ):
        open_through("http://proxy", b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
    error = error_of_status(StatusError(407, Message(), "hub.example", signed=False))
    assert isinstance(error, DownloadError)
    assert "the proxy refuses to connect to hub.example (HTTP 407): it requires a user and password" in str(error)


@pytest.mark.parametrize(
    ("proxy", "answer", "stated"),
    [
        ("http://me:pass@proxy:3128", b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "503"),
        ("socks5://proxy:3128", bytes([5, 0, 5, 4, 0, 1]), "host unreachable"),
    ],
)
def test_proxy_that_cannot_connect_to_a_host_is_named_with_its_answer(proxy: str, answer: bytes, stated: str) -> None:
    with pytest.raises(TransferError) as caught:
        open_through(proxy, answer)
    expected = "the proxy proxy:3128, which the environment names for hub.example, cannot connect to it: "
    assert str(caught.value) == expected + stated


def test_proxy_that_cannot_be_connected_to_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnels_module, "proxy_for", lambda *_: "http://me:pass@127.0.0.1:1")
    expected = (
        r"cannot connect to the proxy 127.0.0.1:1 \(ConnectionRefusedError\), which the environment names for hub"
    )
    with pytest.raises(TransferError, match=expected):
        HttpClient(DownloadSettings()).open("http://hub.example/file", {})


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (socket.gaierror(-2, "Name or service not known"), "its name cannot be resolved"),
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
        (ConnectionResetError(), "ConnectionResetError"),
    ],
)
def test_host_that_cannot_be_connected_to_is_named_with_the_cause(
    monkeypatch: pytest.MonkeyPatch, error: OSError, cause: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    client = HttpClient(DownloadSettings())
    monkeypatch.setattr(client._connections, "get", fail)
    with pytest.raises(TransferError, match=rf"^cannot connect to hub\.example: {cause}$"):
        client.open("http://hub.example/file", {})
