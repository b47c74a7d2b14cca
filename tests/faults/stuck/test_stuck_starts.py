"""Each way to hang is named: the step, its process, and the reason. The starts hang all at once, to save time."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.hangs import HANGS, run
from tests.support.healthy_starts import false_alarms

PATIENCE_SECONDS = 1.6


@pytest.fixture(scope="module")
def reported() -> dict[str, dict[str, Any]]:
    return run(list(HANGS), PATIENCE_SECONDS)


@pytest.mark.parametrize("name", HANGS)
def test_step_process_and_reason_of_a_hang_are_named(reported: dict[str, dict[str, Any]], name: str) -> None:
    first, expected = reported[name], HANGS[name][1]
    assert first, "nothing was reported"
    assert first["name"].startswith(expected.name)
    assert first["process"] == expected.process
    assert expected.reason in first["reason"]
    assert expected.evidence in "\n".join([*first["stacks"], *first["sockets"]])


def test_no_healthy_start_of_fifty_raises_an_alarm() -> None:
    assert false_alarms(range(100, 150)) == []
