"""Variables that turn something on or off."""

from __future__ import annotations

import pytest

from phasebus.telemetry.switches import is_off, is_on


@pytest.mark.parametrize("value", ["1", "true", "True", " TRUE\r", "yes", "on"])
def test_value_turns_on(value: str) -> None:
    assert is_on(value)
    assert not is_off(value)


@pytest.mark.parametrize("value", ["0", "false", "False", "no\n", "OFF"])
def test_value_turns_off(value: str) -> None:
    assert is_off(value)
    assert not is_on(value)


@pytest.mark.parametrize("value", [None, "", "keep", "2"])
def test_other_value_does_neither(value: str | None) -> None:
    assert not is_on(value)
    assert not is_off(value)
