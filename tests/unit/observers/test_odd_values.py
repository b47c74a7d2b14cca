"""Odd values in steps: every output can carry them, and none fails."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phasebus.bus import StepEvent, StepFailed, StepFinished, StepProgress, StepStarted
from phasebus.printable import printable_text
from tests.support.outputs import Outputs

STEP = "a" * 16
OUTPUTS = {
    "metrics", "terminal", "bars", "log", "status", "timeline", "spans", "journal", "perfetto", "page", "plot", "reports"
}  # fmt: skip


def reject(constant: str) -> None:
    raise ValueError(f"JSON has no {constant}")


def events_of(name: Any, value: Any, done: Any, total: Any, error: BaseException) -> list[StepEvent]:
    known: dict[str, Any] = {"step": STEP, "kind": "download", "name": name}
    known["attributes"] = {"odd": value, "trace_id": value, "process": value, name: "x"}
    return [
        StepStarted(**known),
        StepProgress(**known, done=0, total=total, unit="By"),
        StepProgress(**known, done=done, total=total, unit="By"),
        StepProgress(**known, done=1.5, total=total, unit=name),
        StepFinished(**known, seconds=done),
        StepFailed(**known, seconds=done, outcome="failed", error=error),
        StepStarted(**{**known, "step": "b" * 16, "kind": "engine_step"}, parent=STEP),
        StepFailed(**{**known, "step": "b" * 16, "kind": "engine_step"}, seconds=1, outcome="died", error=error),
    ]


def texts_of(events: list[StepEvent], *, threads: bool = True) -> dict[str, str]:
    """Return what leaves through each output for these events, after checks that hold for any."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = Outputs(Path(folder) / "run.jsonl", threads=threads)
        outputs.observe(events)
        texts = outputs.texts()
    assert texts.keys() == (OUTPUTS if threads else OUTPUTS - {"spans", "bars"})
    for output, text in texts.items():
        text.encode("utf-8")
        moves_cursor = output in ("bars", "spans")  # spans are not text
        assert moves_cursor or printable_text(text) == text, output
    for output in ("timeline", "status", "perfetto"):
        json.loads(texts[output], parse_constant=reject)
    for line in texts["journal"].splitlines():
        json.loads(line, parse_constant=reject)
    return texts


class Hostile(str):
    """Text with methods of its own."""

    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Number(float):
    """A number with methods of its own."""

    def __repr__(self) -> str:
        return "\x1b[2J"


CYCLE: list[Any] = []
CYCLE.append(CYCLE)
DEEP: Any = []
for _ in range(100_000):
    DEEP = [DEEP]
ODD = {
    "lone surrogate": "bad\udcff",
    "control characters": "\x00\x07\x1b[31mred\r\n\x85\u2028",
    "OSC sequence": "\x1b]0;owned\x07\x9d8;;http://x\x9c",
    "reordering marks": "a\u202eb\u2066c\ufeff",
    "markup": "[red]x[/red][/]<script>&\"'`${x}",
    "long text": "y" * 70_000,
    "not a number": math.nan,
    "infinity": -math.inf,
    "bytes": b"\xff\x1b",
    "huge integer": 1 << 20_000,
    "smallest integer": -(1 << 63),
    "too large integer": 1 << 63,
    "cycle": CYCLE,
    "deep list": DEEP,
    "object in a mapping": {"a": object(), "b\udcff": {1: {2}}},
    "path": Path("/caf\udce9"),
    "text of another class": Hostile("x\x1b"),
    "number of another class": Number(1),
    "nothing": None,
    "exception": ValueError("\x1b"),
}
NUMBERS: list[Any] = [0, -5, math.nan, math.inf, 1e308, -1e308, 1 << 70, 5e-324, True, None, "1", Number(2)]


@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
def test_odd_attribute_reaches_every_output_as_printable_text(value: Any) -> None:
    texts = texts_of(events_of("odd\udcff\x07\x1b[2J", value, 1, 2, ValueError("bad\udcff\x1b[2J")))
    step, _ = json.loads(texts["timeline"])["steps"]
    assert step["outcome"] == "failed"
    assert step["name"] == "odd\\udcff\\x07\\x1b[2J"
    assert "\x1b[2J" not in texts["bars"]


@pytest.mark.parametrize("name", [value for value in ODD.values() if isinstance(value, str)])
def test_odd_name_reaches_every_output_as_printable_text(name: str) -> None:
    texts_of(events_of(name, "x", 1, 2, ValueError(name)))


@pytest.mark.parametrize("done", NUMBERS)
def test_odd_progress_reaches_every_output_as_numbers(done: Any) -> None:
    events: list[StepEvent] = []
    for at, total in enumerate(NUMBERS):
        known: dict[str, Any] = {"step": f"{at + 1:016x}", "kind": "download", "name": "n"}
        progress = [StepProgress(**known, done=amount, total=total, unit="By") for amount in (0, done, 1.5, done)]
        events += [StepStarted(**known), *progress, StepFinished(**known, seconds=done)]
    texts = texts_of(events, threads=False)
    assert len(json.loads(texts["timeline"])["steps"]) == len(NUMBERS)


@given(
    st.text(), st.text() | st.floats() | st.integers() | st.binary(), st.floats(), st.floats() | st.none(), st.text()
)
@settings(max_examples=20)
def test_any_step_reaches_every_output(name: str, value: Any, done: float, total: float | None, error: str) -> None:
    texts_of(events_of(name, value, done, total, ValueError(error)), threads=False)


def test_excess_attributes_of_a_step_are_left_out() -> None:
    event = StepStarted(step=STEP, kind="phase", name="n", attributes={f"a{at}": at for at in range(100_000)})
    assert len(event.attributes) == 128
    texts_of([event])
