from __future__ import annotations

from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

import pytest

from phasebus.telemetry.proxies import without_proxy


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
