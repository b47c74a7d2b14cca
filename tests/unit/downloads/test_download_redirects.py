"""Redirects and links to further pages: their addresses, and the headers that a request still has."""

from __future__ import annotations

from email.message import Message
from types import SimpleNamespace

import pytest

from phasebus.initializer.downloads import DownloadSettings
from phasebus.initializer.downloads.sources.headers import location, next_query
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


@pytest.mark.parametrize(
    ("sent", "followed"),
    [
        ("/模型/é a.gguf".encode().decode("latin-1"), "/模型/é a.gguf"),
        ("/caf\xe9.gguf", "/caf\xe9.gguf"),
        ("/%E6%A8%A1.gguf", "/%E6%A8%A1.gguf"),
    ],
    ids=["UTF-8", "Latin-1", "quoted"],
)
def test_address_of_a_redirect_may_be_in_utf_8(sent: str, followed: str) -> None:
    headers = Message()
    headers["Location"] = sent
    assert location(headers) == followed
    assert location(Message()) is None


@pytest.mark.parametrize(
    ("link", "query"),
    [
        ('<https://hub.example/api?a=1&cursor=x%3D>; rel="next"', "a=1&cursor=x%3D"),
        ('<https://h/?p=0>; rel="prev", <https://h/?p=2>; title="b"; rel=next', "p=2"),
        ('<https://hub.example/api?p=1>; rel="prev"', None),
        ("<http://[>; rel=next", None),
        ("", None),
    ],
)
def test_next_page_is_that_of_the_link_header(link: str, query: str | None) -> None:
    headers = Message()
    headers["Link"] = link
    assert next_query(headers) == query
