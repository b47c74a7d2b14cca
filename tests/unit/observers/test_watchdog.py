from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator

import pytest

from phasebus.bus import StepFinished, StepStarted
from phasebus.observers import Watchdog
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
