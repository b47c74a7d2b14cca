"""Requests to the relay: compressed or not, spans or notices. They are accepted or rejected, and forwarded ones encode."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource

from phasebus.initializer.engines.vllm.iteration_metrics import IterationsNotice
from phasebus.initializer.engines.vllm.step_tracker import StepTracker
from phasebus.telemetry.otel.printable import printable_span
from phasebus.telemetry.relay import EngineSpan, Notice, NoticeReader, read_spans
from phasebus.telemetry.relay.forward import readable_spans
from phasebus.telemetry.relay.receiver import MOST_BYTES, _decompressed
from phasebus.telemetry.relay.spans import reject_spans
from tests.support.outputs import Outputs

_SPAN: dict[str, Any] = {
    "trace_id": b"\1" * 16,
    "span_id": b"\2" * 8,
    "parent_span_id": b"\3" * 8,
    "trace_state": "a=b",
    "name": "Load model",
    "kind": 1,
    "start_time_unix_nano": 10**18,
    "end_time_unix_nano": 10**18 + 10**9,
    "attributes": [
        {"key": "process", "value": {"string_value": "worker"}},
        {"key": "loss", "value": {"double_value": 0.5}},
        {"key": "ranks", "value": {"array_value": {"values": [{"int_value": 1}, {"int_value": 2}]}}},
        {"key": "raw", "value": {"bytes_value": b"\xff"}},
    ],
    "events": [{"name": "exception", "time_unix_nano": 10**18, "attributes": []}],
    "links": [{"trace_id": b"\1" * 16, "span_id": b"\4" * 8}],
    "status": {"code": 2, "message": "out of memory"},
}
_PROCESS: dict[str, Any] = {"attributes": [{"key": "vllm.process_kind", "value": {"string_value": "worker"}}]}
_SPANS = ExportTraceServiceRequest(
    resource_spans=[{"resource": _PROCESS, "scope_spans": [{"spans": [_SPAN, {**_SPAN, "span_id": b"\5" * 8}]}]}]  # type: ignore[list-item]
).SerializeToString()
_STARTED = {"event": "started", "step": "a" * 16, "name": "Load model", "time_ns": 1, "pid": 2, "process": "worker"}
_NOTICES = b"".join(
    json.dumps(each).encode() + b"\n"
    for each in (
        {**_STARTED, "parent": "b" * 16, "attributes": {"rank": 1, "device": "cpu"}, "traced": True},
        {**_STARTED, "event": "ended", "began_ns": 1, "error": "out of memory"},
        {**_STARTED, "event": "exited", "attributes": {"exit_code": -9}},
        {**_STARTED, "event": "ready"},
    )
)

INSTRUMENTED = ["phasebus.telemetry.relay", "phasebus.telemetry.otel", "phasebus.initializer.engines.vllm"]
SEEDS = [
    b"s" + _SPANS,
    b"n" + _NOTICES,
    b"z" + gzip.compress(_SPANS),
    b"z" + gzip.compress(_NOTICES),
    b"n" + b"[" * 500,
]
TOKENS = [
    *(f'"{name}"'.encode() for name in (*_STARTED, "parent", "attributes", "error", "traced", "ended", "exited", "ready", "began_ns")),
    b"1e999", b"NaN", b"-1", b"\\ud800", b"9223372036854775808", b"null", b"{}", b"\xed\xa0\x80",
]  # fmt: skip


def check(data: bytes) -> None:
    """Pass a request through the relay, up to the exporter and the listeners."""
    body = data[1:]
    if data[:1] == b"z":
        try:
            whole = _decompressed(body)
        except zlib.error:
            return
        assert whole is None or len(whole) <= MOST_BYTES
        body = whole or b""
    if data[:1] != b"n":
        _check_spans(body)
    if data[:1] != b"s":
        _check_notices(body)


def _check_spans(body: bytes) -> None:
    try:
        request = ExportTraceServiceRequest.FromString(body)
    except (DecodeError, RecursionError):
        return
    reject_spans(request)
    _track(read_spans(request))
    spans = [printable_span(span) for span in readable_spans(request, Resource({}), local=True)]
    encode_spans(spans).SerializeToString()


_READER = NoticeReader()
_READER.register("iterations", IterationsNotice)


def _check_notices(body: bytes) -> None:
    notices, faults = _READER.read(body)
    assert len(notices) + len(faults) == len(body.splitlines())
    _track(notices)


def _track(arrivals: Iterable[EngineSpan | Notice]) -> None:
    """Pass what arrived to the steps of the engine, and their events to every output."""
    tracker = StepTracker()
    events = [
        event
        for arrival in arrivals
        if not isinstance(arrival, EngineSpan) or arrival.start_ns
        for event in tracker.events_of(arrival)
    ]
    if not events:
        return
    outputs = Outputs(threads=False)
    outputs.observe(events)
    outputs.observe(tracker.abandoned("failed", "the engine ended"))
    for text in outputs.texts().values():
        text.encode()
