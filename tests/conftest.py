from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from phasebus.bus import Bus

settings.register_profile("busy machines", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machines")


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what is told last waited for as long as a busy machine takes, not for the seconds that production grants it.

    Tests of those seconds give their own. What a test has not imported is left alone: some are there to do without.
    """
    defaults = Bus.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "drain_seconds", 60.0)
    for name, seconds in (
        ("phasebus.telemetry.collector", "SHUTDOWN_FLUSH_SECONDS"),
        ("phasebus.telemetry.tracing", "SHUTDOWN_FLUSH_SECONDS"),
        ("phasebus.initializer.engines.vllm.steps", "FINAL_STEPS_SECONDS"),
    ):
        if name in sys.modules:
            monkeypatch.setattr(sys.modules[name], seconds, 60.0)


@pytest.fixture(autouse=True)
def no_known_secrets() -> None:
    """Forget the secrets that other tests have made known."""
    if (known := sys.modules.get("phasebus.telemetry.redaction.known")) is not None:
        known.forget_secrets()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that is a model as far as fetching it goes."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder
