"""No value of a step makes an observer, the page's state, or a picture fail."""

from __future__ import annotations

import io
import json
import logging
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from phasebus.bus import StepEvent, StepFailed, StepFinished, StepProgress, StepStarted
from phasebus.observers import LogObserver, MetricsObserver, ProgressObserver, StatusObserver, TimelineObserver
from phasebus.telemetry import Metrics, RunIdentity, Status, Timeline

STEP = "a" * 16


def reject(constant: str) -> None:
    raise ValueError(f"JSON has no {constant}")


def observe_everywhere(events: list[StepEvent]) -> tuple[Timeline, str]:
    """Return the timeline and the texts of all observers that have observed `events`."""
    metrics, timeline, terminal = Metrics("1"), Timeline(RunIdentity.fresh("n", {})), io.StringIO()
    logger = logging.getLogger("odd values")
    logger.propagate = False
    logger.handlers.clear()
    handler = logging.StreamHandler(terminal)
    logger.addHandler(handler)
    observers: list[Any] = [
        StatusObserver(status := Status(), metrics),
        TimelineObserver(timeline),
        MetricsObserver(metrics, "b" * 32),
        LogObserver(logger),
        ProgressObserver(Console(file=terminal, width=100), interval=0.0),
    ]
    for event in events:
        for observer in observers:
            observer.observe(event)
    body, _ = metrics.render("application/openmetrics-text")
    return timeline, "\n".join([terminal.getvalue(), json.dumps(status.describe(), ensure_ascii=False), body.decode()])


def encoded(timeline: Timeline) -> str:
    """Return all steps of `timeline` as a reader receives them."""
    _, about, ids = timeline.contents()
    steps, _ = timeline.encoded_steps(ids, 0, 1 << 30)
    return f'{about[:-1]}, "steps": [{steps}]}}'


def events_of(name: str, value: Any, done: Any, total: Any, error: BaseException) -> list[StepEvent]:
    attributes = {"odd": value, "trace_id": value, name: "x"}
    known: dict[str, Any] = {"step": STEP, "kind": "download", "name": name, "attributes": attributes}
    return [
        StepStarted(**known),
        StepProgress(**known, done=0, total=total, unit="By"),
        StepProgress(**known, done=done, total=total, unit="By"),
        StepProgress(**known, done=1.5, total=total, unit="By"),
        StepFinished(**known, seconds=math.nan),
        StepFailed(**known, seconds=1.0, outcome="failed", error=error),
    ]


CYCLE: list[Any] = []
CYCLE.append(CYCLE)
ODD = [
    "bad\udcff",
    "\x1b]0;owned\x07\r\n",
    math.nan,
    math.inf,
    b"\xff",
    1 << 20_000,
    -(1 << 63),
    CYCLE,
    {"a": object()},
]
NUMBERS = [0, -5, math.nan, math.inf, 1e308, -1e308, 1 << 70, 5e-324]


@pytest.mark.parametrize("value", ODD, ids=[str(at) for at in range(len(ODD))])
def test_an_odd_attribute_reaches_every_output_as_printable_text(value: Any) -> None:
    timeline, texts = observe_everywhere(events_of("odd\udcff\x07", value, 1, 2, ValueError("bad\udcff\x1b[2J")))
    texts.encode("utf-8")
    assert "\x1b" not in texts
    state = encoded(timeline)
    state.encode("utf-8")
    (step,) = json.loads(state, parse_constant=reject)["steps"]
    assert step["outcome"] == "failed"
    assert "\x07" not in step["name"]


@pytest.mark.parametrize("done", NUMBERS)
@pytest.mark.parametrize("total", [*NUMBERS, None])
def test_odd_progress_is_valid_json(done: float, total: float | None) -> None:
    timeline, _ = observe_everywhere(events_of("n", "x", done, total, ValueError("e"))[:4])
    state = json.loads(encoded(timeline), parse_constant=reject)
    changes = json.loads(timeline.changes(0)[1], parse_constant=reject)
    assert len(state["steps"]) == 1
    assert changes


@given(
    st.text(), st.text() | st.floats() | st.integers() | st.binary(), st.floats(), st.floats() | st.none(), st.text()
)
def test_any_step_reaches_every_output(name: str, value: Any, done: float, total: float | None, error: str) -> None:
    timeline, texts = observe_everywhere(events_of(name, value, done, total, ValueError(error)))
    texts.encode("utf-8")
    (step,) = json.loads(encoded(timeline), parse_constant=reject)["steps"]
    assert step["outcome"] == "failed"
