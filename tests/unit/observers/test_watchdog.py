from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterable, Iterator

import pytest

from phasebus.bus import AttributeValue, StepFinished, StepStarted
from phasebus.observers import Watchdog
from phasebus.observers.stuck import evidence
from phasebus.observers.stuck.activity import Activity
from phasebus.observers.stuck.suspects import Patience
from phasebus.telemetry.stuck import StuckSteps
from tests.support.waiting import wait_until

OUTER, INNER = "a" * 16, "b" * 16


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    watchdog = Watchdog(seconds=0.05)
    yield watchdog
    watchdog.close()


def long_ago() -> int:
    return time.monotonic_ns() - 90 * 10**9


def test_the_innermost_long_step_is_logged_repeatedly(watchdog: Watchdog, caplog: pytest.LogCaptureFixture) -> None:
    watchdog.observe(  # first, so that at no moment the outer one is the innermost
        StepStarted(step=INNER, parent=OUTER, kind="engine_step", name="load_weights", monotonic_ns=long_ago())
    )
    watchdog.observe(StepStarted(step=OUTER, kind="phase", name="engine_init", monotonic_ns=long_ago()))
    wait_until(lambda: len(caplog.records) >= 2, "it is spoken of twice")
    assert caplog.records[0].levelno == logging.WARNING
    message = caplog.records[0].getMessage()
    assert re.fullmatch(r"load weights has been running for 1 min 3\d s", message)
    assert "engine_init" not in caplog.text


def test_an_ended_step_is_not_logged(watchdog: Watchdog, caplog: pytest.LogCaptureFixture) -> None:
    watchdog.observe(StepStarted(step=OUTER, kind="phase", name="outer", monotonic_ns=long_ago()))
    watchdog.observe(StepStarted(step=INNER, parent=OUTER, kind="phase", name="inner", monotonic_ns=long_ago()))
    watchdog.observe(StepFinished(step=INNER, parent=OUTER, kind="phase", name="inner", seconds=1.0))
    wait_until(lambda: "phase outer has been running" in caplog.text, "the outer one is spoken of")
    seen = len(caplog.records)
    wait_until(lambda: len(caplog.records) > seen + 1, "and again")
    assert "phase inner" not in "".join(record.getMessage() for record in caplog.records[seen:])


def a_start(watchdog: Watchdog) -> None:
    watchdog.observe(StepStarted(step=OUTER, kind="node", name="n"))
    attributes: dict[str, AttributeValue] = {"process": "Worker", "pid": os.getppid()}
    watchdog.observe(
        StepStarted(step=INNER, parent=OUTER, kind="engine_step", name="load_weights", attributes=attributes)
    )


@pytest.fixture
def reported() -> list[StuckSteps]:
    return []


@pytest.fixture
def cpu() -> list[float]:
    """The CPU time that each process has used, and uses between two samples."""
    return [0.0, 0.0]


@pytest.fixture
def detecting(reported: list[StuckSteps], cpu: list[float], monkeypatch: pytest.MonkeyPatch) -> Iterator[Watchdog]:
    monkeypatch.setattr(evidence, "stacks_of", lambda pid: ())

    def sample(pids: Iterable[int]) -> dict[int, Activity]:
        cpu[0] += cpu[1]
        return dict.fromkeys(pids, Activity(cpu=cpu[0]))

    patience = Patience(seconds=0.08, elsewhere=60, halted=0.03, interval=0.01)
    watchdog = Watchdog(patience=patience, report=[reported.append], sample=sample)
    yield watchdog
    watchdog.close()


def test_stuck_step_is_reported_once_and_again_when_the_start_goes_on(
    detecting: Watchdog, reported: list[StuckSteps], cpu: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    a_start(detecting)
    wait_until(lambda: reported, "it is reported")
    assert [step.name for step in reported[0].steps] == ["load weights"]
    assert sum("load weights (Worker" in record.getMessage() for record in caplog.records) == 1
    cpu[1] = 1.0
    wait_until(lambda: len(reported) > 1, "it is reported that the start goes on")
    assert reported[1].steps == ()
    assert "load weights is no longer stuck" in caplog.text


def test_step_that_ends_is_no_longer_reported_as_stuck(detecting: Watchdog, reported: list[StuckSteps]) -> None:
    a_start(detecting)
    wait_until(lambda: reported, "it is reported")
    detecting.observe(StepFinished(step=INNER, parent=OUTER, kind="engine_step", name="load_weights", seconds=1.0))
    wait_until(lambda: len(reported) > 1, "its end is reported")
    assert reported[1].steps == ()


def test_search_that_fails_is_given_up_and_the_reminders_go_on(caplog: pytest.LogCaptureFixture) -> None:
    def sample(pids: Iterable[int]) -> dict[int, Activity]:
        raise OSError("no /proc")

    watchdog = Watchdog(seconds=0.05, patience=Patience(seconds=0.08, interval=0.01), sample=sample)
    a_start(watchdog)
    wait_until(lambda: "has been running for" in caplog.text, "it is logged as running for long")
    wait_until(lambda: "the search for stuck steps has failed" in caplog.text, "the failure is logged")
    seen = len(caplog.records)
    wait_until(lambda: len(caplog.records) > seen, "it is logged again")
    assert caplog.text.count("the search for stuck steps has failed") == 1
    watchdog.close()
