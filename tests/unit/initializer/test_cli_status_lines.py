from __future__ import annotations

from typing import Any

from phasebus.initializer.cli.status_lines import StatusLines, StatusThread
from tests.support.waiting import wait_until

NODE = {"id": "n", "node": "a", "kind": "node", "name": "a", "start": 0.0, "outcome": "running"}
DOWNLOAD = {
    "id": "d",
    "parent": "n",
    "node": "a",
    "kind": "phase",
    "name": "download",
    "start": 0.0,
    "outcome": "running",
}
STUCK = {"step": "d", "reason": "no byte read"}


def by_id(*steps: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {step["id"]: step for step in steps}


def test_a_start_that_goes_on_is_a_line_after_10_seconds_and_every_30() -> None:
    lines, steps = StatusLines(0.0), by_id(NODE, DOWNLOAD)
    due = [now for now in range(100) if lines.line(steps, float(now))]
    assert due == [10, 40, 70]


def test_a_stuck_or_failed_step_is_a_line_at_once_and_once() -> None:
    lines, steps = StatusLines(0.0), by_id(NODE, DOWNLOAD)
    assert lines.line(steps, 1.0, None, [STUCK]) == "Stuck: look at download, no byte read"
    assert lines.line(steps, 2.0, None, [STUCK]) is None
    failed = by_id(NODE, DOWNLOAD | {"outcome": "failed", "end": 3.0, "error": "gone"})
    assert lines.line(failed, 4.0) == "Failing: look at download, gone"


def test_a_stuck_step_that_the_watchdog_logs_is_a_line_after_30_seconds() -> None:
    lines, steps = StatusLines(0.0, report_stuck=False), by_id(NODE, DOWNLOAD)
    assert [now for now in range(1, 60) if lines.line(steps, float(now), None, [STUCK])] == [31]


def test_a_start_that_is_over_or_has_not_begun_is_no_line() -> None:
    assert StatusLines(0.0).line({}, 100.0) is None
    assert StatusLines(0.0).line(by_id(NODE | {"outcome": "failed", "end": 3.0}), 100.0) is None


def test_the_thread_writes_the_line_that_is_due(monkeypatch: Any) -> None:
    monkeypatch.setattr("phasebus.initializer.cli.status_lines._CHECK_SECONDS", 0.001)
    written: list[str] = []
    thread = StatusThread(lambda: (by_id(NODE, DOWNLOAD), None, [STUCK]), written.append)
    wait_until(lambda: written, "the line")
    thread.close()
    assert written == ["Stuck: look at download, no byte read"]
