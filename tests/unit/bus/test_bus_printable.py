"""Events of steps have printable texts and finite numbers, whatever they are made from."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from numbers import Integral, Real
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasebus.bus import AttributeValue, StepFailed, StepFinished, StepProgress, StepsCounted, StepStarted
from phasebus.printable import printable_attributes, printable_text

STEP = "a" * 16
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


class Count:
    """A number of another library."""

    def __float__(self) -> float:
        return 3.0


class Whole:
    """An integer of another library."""

    def __int__(self) -> int:
        return 3


class Share:
    """A real number of another library."""

    def __float__(self) -> float:
        return 0.5


@given(name=st.text(), attributes=st.dictionaries(st.text(), VALUES))
def test_event_of_any_values_is_printable(name: str, attributes: dict[str, Any]) -> None:
    event = StepStarted(step=STEP, kind="phase", name=name, attributes=attributes)
    for text in (event.name, *event.attributes, *event.attributes.values()):
        if isinstance(text, str):
            text.encode()
            assert printable_text(text) == text
    json.dumps(dict(event.attributes), allow_nan=False)
    assert all(type(each) in (str, int, float, bool) for each in event.attributes.values())


Integral.register(Whole)
Real.register(Share)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Whole(), 3),
        (Share(), 0.5),
        (type("bool_", (), {"__module__": "numpy", "__bool__": lambda self: True})(), True),
        (PurePosixPath("/models/tiny"), "/models/tiny"),
        (Decimal("1.5"), "Decimal('1.5')"),
        ([1, "ok"], "[1, 'ok']"),
    ],
)
def test_attributes_of_other_classes_are_numbers_paths_or_text(value: Any, expected: object) -> None:
    shown = printable_attributes({"value": value})["value"]
    assert (shown, type(shown)) == (expected, type(expected))


def test_printable_attributes_stay_the_same_object() -> None:
    attributes: dict[str, AttributeValue] = {"model": "m", "rank": 1, "loss": 0.5, "traced": True}
    assert printable_attributes(attributes) is attributes
    event = StepStarted(step=STEP, kind="phase", name="caf\udce9", attributes=attributes)
    assert event.attributes is attributes
    assert event.name == "caf\\udce9"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, 1), (0.5, 0.5), (Count(), 3.0), (math.nan, 0), (-math.inf, 0), (-1, 0), (1 << 63, 0), (None, 0), ("x", 0)],
)
def test_amounts_are_finite_and_at_least_0(value: Any, expected: float) -> None:
    assert StepProgress(step=STEP, kind="file", name="f", done=value).done == expected
    assert StepFinished(step=STEP, kind="file", name="f", seconds=value).seconds == expected
    failed = StepFailed(step=STEP, kind="file", name="f", seconds=value, outcome="failed", error=ValueError())
    assert failed.seconds == expected


@pytest.mark.parametrize("total", [math.nan, math.inf, -1, 1 << 63, "x"])
def test_impossible_total_is_unknown(total: Any) -> None:
    assert StepProgress(step=STEP, kind="file", name="f", done=1, total=total).total is None


def test_counted_steps_are_printable_too() -> None:
    counted = StepsCounted(kind="request", name="\x1b", attributes={"path": b"\xff"}, seconds=(1.0,))  # type: ignore[dict-item]
    assert (counted.name, counted.attributes) == ("\\x1b", {"path": "\\xff"})
