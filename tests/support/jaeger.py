"""Traces as Jaeger's query API returns them: after its adjusters, with their warnings as attributes of the spans.

Source: Jaeger's `http_gateway.go`, `adjuster/standard.go` and `jptrace/warning.go`, as of August 2026.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from tests.support.traces import ExportedSpan, assert_is_one_trace, exported_json, faults
from tests.support.waiting import wait_until

WARNINGS = "@jaeger@warnings"
"""The attribute with the warnings of the adjusters."""


def whole_trace(jaeger: str, trace: str, steps: set[str]) -> list[ExportedSpan]:
    """Return the spans of a trace, once all `steps` have one; assert that it is whole, and that Jaeger does not warn."""
    wait_until(lambda: steps <= {each.id for each in spans_of(jaeger, trace)}, "the trace is there")
    with suppress(AssertionError):  # a program that observes an application exports its spans later
        wait_until(lambda: not list(faults(spans_of(jaeger, trace))), "the trace is whole", 30)
    found = spans_of(jaeger, trace)
    assert_is_one_trace(found)
    warned = [f"{each}: {each.attributes[WARNINGS]}" for each in found if WARNINGS in each.attributes]
    assert not warned, "\n".join(warned)
    return found


def spans_of(jaeger: str, trace: str) -> list[ExportedSpan]:
    """Return the spans of a trace; none if the trace is not there."""
    answer = httpx.get(f"{jaeger}/api/v3/traces/{trace}", timeout=30)
    if answer.status_code == httpx.codes.NOT_FOUND:
        return []
    answer.raise_for_status()
    result: dict[str, Any] = answer.json()["result"]
    return exported_json({"resourceSpans": result["resourceSpans"]})


@contextmanager
def stub_of_jaeger(received: Callable[[], Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    """Answer `GET /api/v3/traces/ID` as Jaeger does, without its adjusters; yield the URL.

    Args:
        received: Returns the `resourceSpans` that have been received, OTLP as JSON.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = list(_only(received(), self.path.removeprefix("/api/v3/traces/")))
            error = {"httpCode": httpx.codes.NOT_FOUND, "message": "No traces found"}
            content = json.dumps({"result": {"resourceSpans": found}} if found else {"error": error}).encode()
            self.send_response(httpx.codes.OK if found else httpx.codes.NOT_FOUND)
            self.send_header("Content-Type", "application/json" if found else "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _only(received: Sequence[Mapping[str, Any]], trace: str) -> Iterator[Mapping[str, Any]]:
    for of_resource in received:
        scopes = [
            {**scope, "spans": spans}
            for scope in of_resource["scopeSpans"]
            if (spans := [span for span in scope["spans"] if span["traceId"] == trace])
        ]
        if scopes:
            yield {**of_resource, "scopeSpans": scopes}
