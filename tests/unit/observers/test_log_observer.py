from __future__ import annotations

import logging

import pytest

from phasebus.bus import StepFailed, StepFinished, StepStarted
from phasebus.observers import LogObserver
from phasebus.telemetry.formatting import format_duration

STEP = "a" * 16


def test_a_step_worth_a_line_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    observer = LogObserver()
    observer.observe(StepStarted(step=STEP, kind="node", name="a"))
    observer.observe(StepStarted(step=STEP, kind="phase", name="download"))
    observer.observe(StepFinished(step=STEP, kind="phase", name="pre_download", seconds=0.00005))
    looks = {"phase": "pre_download"}
    observer.observe(StepFinished(step=STEP, kind="callback", name="looks", seconds=0.0001, attributes=looks))
    changes = looks | {"changed": "mode"}
    observer.observe(StepFinished(step=STEP, kind="callback", name="mine", seconds=0.0001, attributes=changes))
    observer.observe(StepFinished(step=STEP, kind="phase", name="download", seconds=2.0))
    assert [record.getMessage() for record in caplog.records] == [
        "node a …",
        "callback mine in pre download: 0.1 ms, changed mode",
        "download: 2 s",
    ]


def test_other_starts_and_ends_are_logged_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    observer = LogObserver()
    observer.observe(StepStarted(step=STEP, kind="phase", name="download"))
    observer.observe(StepFinished(step=STEP, kind="phase", name="download", seconds=0.00005))
    assert [record.getMessage() for record in caplog.records] == ["download …", "download: 0.05 ms"]


def test_a_failure_is_an_error_with_its_reason_and_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    error = ValueError("token=hunter2secret refused")
    LogObserver().observe(
        StepFailed(step=STEP, kind="phase", name="download", seconds=75.0, outcome="failed", error=error)
    )
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == "download failed after 1 min 15 s: token=[redacted] refused"


def test_an_error_that_fails_the_outer_steps_too_is_one_line_and_one_for_the_node(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    observer, error = LogObserver(), ValueError("no space left\nits last lines:\n  …")
    for kind, name in (("file", "a.bin"), ("phase", "download"), ("node", "n")):
        observer.observe(StepFailed(step=STEP, kind=kind, name=name, seconds=2.0, outcome="failed", error=error))
    assert [record.getMessage() for record in caplog.records] == [
        "file a.bin failed after 2 s: no space left",
        "node n failed after 2 s",
    ]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "0 ms"),
        (0.00012, "0.12 ms"),
        (0.085, "85 ms"),
        (0.9996, "1 s"),
        (1.644, "1.64 s"),
        (59.9, "59.9 s"),
        (185.2, "3 min 5 s"),
    ],
)
def test_durations_have_two_or_three_digits(seconds: float, said: str) -> None:
    assert format_duration(seconds) == said
