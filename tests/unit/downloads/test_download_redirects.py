"""The headers that a request still has after a redirect."""

from __future__ import annotations

from email.message import Message
from types import SimpleNamespace

import pytest

from phasebus.initializer.downloads import DownloadSettings
from phasebus.initializer.downloads.sources.http import HttpClient, StatusError


@pytest.mark.parametrize(
    ("url", "location", "sent"),
    [
        ("http://hub.example/a", "https://hub.example/a", True),
        ("http://hub.example:80/a", "https://hub.example:443/b", True),
        ("https://hub.example/a", "/b", True),
        ("http://hub.example/a", "https://cdn.example/a", False),
        ("http://hub.example:8080/a", "https://hub.example/a", False),
        ("http://hub.example/a", "https://hub.example:8443/a", False),
        ("https://hub.example/a", "https://hub.example:8443/a", False),
    ],
)
def test_credentials_follow_a_redirect_to_the_same_host_with_tls_only(
    url: str, location: str, sent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[dict[str, str]] = []

    def get(_: str, headers: dict[str, str]) -> SimpleNamespace:
        requests.append(headers)
        answer = Message()
        if len(requests) == 1:
            answer["Location"] = location
        return SimpleNamespace(status=302 if len(requests) == 1 else 404, headers=answer, close=lambda: None)

    client = HttpClient(DownloadSettings())
    monkeypatch.setattr(client._connections, "get", get)
    with pytest.raises(StatusError) as caught:
        client.request(url, {"Authorization": "Bearer token"})
    assert ("Authorization" in requests[1]) is sent
    assert caught.value.signed is not sent
