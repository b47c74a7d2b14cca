"""The addresses of a server, and the order in which connections are attempted."""

from __future__ import annotations

import socket
from http.client import HTTPConnection
from typing import Any

import pytest

from phasebus.initializer.downloads import DownloadSettings
from phasebus.initializer.downloads.sources import connections as connections_module
from phasebus.initializer.downloads.sources.connections import Connections
from phasebus.initializer.downloads.sources.wire import Wire

SILENT, ANSWERING = ("100::1", 80, 0, 0), ("127.0.0.1", 80)


def test_address_that_did_not_answer_is_attempted_last_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[Any] = []

    def connect(_: Wire, address: Any, __: float) -> None:
        attempts.append(address)
        if address == SILENT:
            raise TimeoutError

    resolved = [(socket.AF_INET, 1, 6, "", SILENT), (socket.AF_INET, 1, 6, "", ANSWERING)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: resolved)
    monkeypatch.setattr(Wire, "connect", connect)
    connections = Connections(DownloadSettings())
    for _ in range(2):
        connections._dial("hub.example", 80).close()
    assert attempts == [SILENT, ANSWERING, ANSWERING]


def test_connections_that_were_idle_for_long_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    connections, key = Connections(DownloadSettings()), ("https", "hub.example")
    kept = [HTTPConnection("hub.example") for _ in range(3)]
    closed: list[HTTPConnection] = []
    monkeypatch.setattr(HTTPConnection, "close", lambda each: closed.append(each))  # noqa: PLW0108  # a method of it
    for each in kept:
        connections._keep(key, each)
    assert connections._take_idle(key) is kept[2]
    with monkeypatch.context() as patch:
        patch.setattr(connections_module, "_IDLE_SECONDS", 0.0)
        assert connections._take_idle(key) is None
    assert closed == kept[:2]
    connections._keep(key, kept[2])
    assert connections._take_idle(key) is kept[2]
