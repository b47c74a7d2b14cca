from __future__ import annotations

import os
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

import pytest

from phasebus.telemetry.proxies import proxy_for, without_proxy


@pytest.mark.parametrize(
    "environment", [{}, {"NO_PROXY": ""}, {"http_proxy": ""}, {"HTTP_PROXY": "p", "NO_PROXY": "*"}]
)
def test_nothing_is_added_where_no_proxy_would_be_used(environment: dict[str, str]) -> None:
    assert without_proxy(environment) == {}


@pytest.mark.parametrize("proxy", ["http_proxy", "HTTPS_PROXY", "ALL_PROXY"])
def test_loopback_and_the_relay_are_added_to_what_is_there(proxy: str) -> None:
    environment = {proxy: "http://proxy:3128", "NO_PROXY": ".corp.example, 10.0.0.0/8", "no_proxy": ".corp.example"}
    expected = ".corp.example,10.0.0.0/8,127.0.0.1,localhost,::1,10.1.2.3"
    assert without_proxy(environment, "127.0.0.1", "10.1.2.3") == {"NO_PROXY": expected, "no_proxy": expected}


def test_python_clients_understand_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in without_proxy({"http_proxy": "http://proxy:3128", "NO_PROXY": ".corp.example"}).items():
        monkeypatch.setenv(name, value)
    assert proxy_bypass_environment("127.0.0.1:4318")
    assert proxy_bypass_environment("a.corp.example")
    assert not proxy_bypass_environment("collector.example")


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without proxy variables."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize(
    ("excluded", "host", "direct"),
    [
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.0.0.0/8", "hub.example", False),
        ("fd00::/8", "fd12::1", True),
        ("[fd12::1]", "fd12::1", True),
        ("hub.example:8080", "hub.example", True),
        ("hub.example:80", "hub.example", False),
        ("10.1.2.3:8080", "10.1.2.3", True),
        ("*.example", "hub.example", True),
        (".example", "hub.example", True),
        ("a example", "hub.example", True),
        ("HUB.Example.", "hub.example", True),
        ("b.example", "hub.example", False),
        ("ub.example", "hub.example", False),
        ("*", "hub.example", True),
        ("", "hub.example", False),
        (",*., .", "hub.example", False),
    ],
)
def test_entry_of_no_proxy_excludes_a_host(
    variables: pytest.MonkeyPatch, excluded: str, host: str, direct: bool
) -> None:
    variables.setenv("HTTP_PROXY", "http://proxy:3128")
    variables.setenv("NO_PROXY", excluded)
    assert proxy_for("http", host, 8080) == (None if direct else "http://proxy:3128")


def test_all_proxy_is_used_for_a_scheme_without_a_proxy(variables: pytest.MonkeyPatch) -> None:
    variables.setenv("HTTP_PROXY", "http://proxy:3128")
    variables.setenv("ALL_PROXY", "socks5://proxy:1080")
    assert proxy_for("http", "hub.example", 80) == "http://proxy:3128"
    assert proxy_for("https", "hub.example", 443) == "socks5://proxy:1080"
