from __future__ import annotations

import pytest

from phasebus.initializer.engines.protocol import EngineError
from phasebus.initializer.engines.vllm import versions
from phasebus.initializer.engines.vllm.launch import VLLM
from phasebus.initializer.engines.vllm.versions import check_vllm


@pytest.mark.parametrize("release", ["0.11.2", "0.15.1"])
def test_vllm_below_the_minimum_is_refused_with_the_supported_versions(release: str) -> None:
    with pytest.raises(EngineError, match=rf"vLLM {release} is not supported: .* supports vLLM 0\.16\.0 to 0\.33\.0"):
        check_vllm(release)


@pytest.mark.parametrize("release", ["0.16.0", "0.33.0+cpu", "0.33.5", "0.1.dev9+gabc", "dev"])
def test_supported_and_development_versions_pass_silently(release: str, caplog: pytest.LogCaptureFixture) -> None:
    check_vllm(release)
    assert caplog.records == []


def test_vllm_newer_than_the_newest_supported_one_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    check_vllm("0.40.0")
    assert "vLLM 0.40.0 is newer than the newest" in caplog.text


def test_launcher_refuses_an_old_vllm_before_it_checks_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "installed_version", lambda: "0.11.0")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())  # of vllm, which may not be installed
    with pytest.raises(EngineError, match=r"vLLM 0\.11\.0 is not supported"):
        VLLM().check({"no_such_argument": 1})
