"""The test against a Jaeger reads traces as its query API returns them, and fails for what Jaeger would warn of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.jaeger import WARNINGS, spans_of, stub_of_jaeger, whole_trace

FOLDER = Path(__file__).parents[2] / "docs" / "traces"


@pytest.fixture
def received(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """The `resourceSpans` that a Jaeger has received, in the form of its answer, with numbers for kinds and codes."""
    text = (FOLDER / f"{getattr(request, 'param', 'up')}.json").read_text(encoding="utf-8")
    spans: list[dict[str, Any]] = json.loads(text)["resourceSpans"]
    for span in _spans(spans):
        span["kind"] = 1
        span.setdefault("parentSpanId", "")
    return spans


def _spans(received: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [span for resource in received for scope in resource["scopeSpans"] for span in scope["spans"]]


@pytest.mark.parametrize("received", ["up", "serve-llm"], indirect=True)
def test_whole_trace_is_read_back(received: list[dict[str, Any]]) -> None:
    ids = {span["spanId"] for span in _spans(received)}
    trace = _spans(received)[0]["traceId"]
    with stub_of_jaeger(lambda: received) as jaeger:
        assert {each.id for each in whole_trace(jaeger, trace, ids)} == ids


def test_fields_that_a_later_jaeger_adds_are_ignored(received: list[dict[str, Any]]) -> None:
    received[0]["resource"]["entityRefs"] = [{"type": "service", "idKeys": ["service.name"], "later": 1}]
    trace = _spans(received)[0]["traceId"]
    with stub_of_jaeger(lambda: received) as jaeger:
        assert len(spans_of(jaeger, trace)) == len(_spans(received))


def test_trace_that_jaeger_does_not_have_is_empty(received: list[dict[str, Any]]) -> None:
    with stub_of_jaeger(lambda: received) as jaeger:
        assert spans_of(jaeger, "f" * 32) == []


def test_warning_of_an_adjuster_fails_the_test(received: list[dict[str, Any]]) -> None:
    span = _spans(received)[0]
    warning = {"arrayValue": {"values": [{"stringValue": "clock skew adjustment disabled"}]}}
    span.setdefault("attributes", []).append({"key": WARNINGS, "value": warning})
    with stub_of_jaeger(lambda: received) as jaeger, pytest.raises(AssertionError, match="clock skew"):
        whole_trace(jaeger, span["traceId"], {span["spanId"]})
