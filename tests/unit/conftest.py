"""Unit tests write nothing outside a folder of their own."""

from __future__ import annotations

from itertools import count

import pytest

_numbers = count()


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the folders; only a test that writes into them creates them."""
    own = tmp_path_factory.getbasetemp() / f"own-{next(_numbers)}"
    monkeypatch.setenv("PHASEBUS_STATE_DIR", str(own / "state"))
    monkeypatch.setenv("PHASEBUS_CACHE_DIR", str(own / "cache"))
    monkeypatch.setenv("PHASEBUS_RUNTIME_DIR", str(own / "runtime"))
    for name in ("TRACEPARENT", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
