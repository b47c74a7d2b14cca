"""The memory of an engine's processes: what is free is returned at the end of their starts."""

from __future__ import annotations

import pytest

from phasebus.initializer.engines.vllm.inside import hooks


def test_free_memory_is_returned_after_the_last_step(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(hooks, "return_free_memory", lambda: calls.append("returned"))

    def step(first: int, *, second: int) -> int:
        calls.append("called")
        return first + second

    assert hooks._and_return_memory(step)(1, second=2) == 3
    assert calls == ["called", "returned"]
