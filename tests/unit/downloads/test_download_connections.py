"""The addresses of a server, and the order in which connections are attempted."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from phasebus.initializer.downloads import DownloadSettings
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
