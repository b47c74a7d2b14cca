"""The checks of exported traces find each kind of fault: every test of spans relies on them."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from phasebus.telemetry.relay.spans import attributes_of
from tests.support.traces import ExportedSpan, faults

SECOND = 10**9
ROOT = {"number": 1}
RESOURCE = {"service.name": "phasebus", "service.instance.id": "i", "host.name": "h", "process.pid": 7}


def exported(
    number: int, parent: int = 0, start: float = 0, end: float = 10, *, resource: dict[str, Any] | None = None
) -> ExportedSpan:
    span = Span(
        trace_id=b"t" * 16,
        span_id=number.to_bytes(8, "big"),
        parent_span_id=parent.to_bytes(8, "big") if parent else b"",
        name=f"span {number}",
        start_time_unix_nano=int(start * SECOND),
        end_time_unix_nano=int(end * SECOND),
    )
    return ExportedSpan(span, {**RESOURCE, **(resource or {})})


def changed(each: ExportedSpan, **fields: Any) -> ExportedSpan:
    each.span.MergeFrom(Span(**fields))
    return each


def test_trace_without_faults_has_none() -> None:
    linked = changed(exported(4, 2, 4, 7), links=[Span.Link(trace_id=b"t" * 16, span_id=b"s" * 8)])
    other = {"service.instance.id": "j", "process.pid": 8}
    spans = [exported(1), exported(2, 1, 1, 5), exported(3, 2, 2, 5), linked, exported(5, 1, resource=other)]
    assert list(faults(spans, ended_ns=10 * SECOND)) == []
    assert attributes_of(spans[0].span.attributes) == {}


def test_root_may_have_a_caller_in_another_program() -> None:
    spans = [exported(1, 9), exported(2, 1)]
    assert list(faults(spans, caller=f"{9:016x}")) == []
    assert len(list(faults(spans))) == 2  # no root, and an orphan


def test_span_that_a_driver_exported_again_for_a_lost_node_is_no_fault() -> None:
    again = changed(exported(2, 1), attributes=[{"key": "phasebus.retold", "value": {"bool_value": True}}])
    assert list(faults([exported(1), exported(2, 1), again])) == []
    assert list(faults([exported(1), again])) == []


@pytest.mark.parametrize(
    ("spans", "fault"),
    [
        ([exported(1), exported(2, 1), exported(2, 1)], "2 spans have the id"),
        ([exported(1), exported(2)], "it has 2 roots"),
        ([exported(1), exported(2, 5)], "a parent that is not in the trace"),
        ([exported(1, start=2), exported(2, 1, start=1)], "begins 1.000 s before its parent"),
        ([exported(1), exported(2, 1, end=12)], "ends 2.000 s after its parent"),
        ([exported(1, end=40)], "lies outside the run"),
        ([changed(exported(1), status=Status(code=Status.STATUS_CODE_ERROR))], "without a message or error.type"),
        ([exported(1, resource={"service.name": ""})], "without service.name"),
        ([exported(1, resource={"service.name": "unknown_service"})], "without a service name"),
        ([exported(1), exported(2, 1, resource={"process.pid": 8})], "2 processes have the instance id"),
        (
            [changed(exported(1), events=[Span.Event(name="late", time_unix_nano=11 * SECOND)])],
            "outside its time: late",
        ),
        ([exported(1), changed(exported(2, 1), trace_id=b"u" * 16)], "they belong to 2 traces"),
    ],
)
def test_trace_with_a_fault_is_reported(spans: list[ExportedSpan], fault: str) -> None:
    assert fault in "; ".join(faults(spans, ended_ns=30 * SECOND))
