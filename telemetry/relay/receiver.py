"""The loopback address an engine's processes export their spans to."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Callable, Mapping

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from phasebus.telemetry.relay.forward import Forwarder
from phasebus.telemetry.relay.spans import EngineSpan, read_spans
from phasebus.telemetry.service.server import Server

logger = logging.getLogger("phasebus.telemetry")

_MOST_BYTES = 64 * 1024 * 1024

OnSpan = Callable[[EngineSpan], None]


class Relay:
    """Receives spans over OTLP/HTTP, hands the requests on, and gives the spans to whoever listens.

    Args:
        forwarder: Hands each request on, as it came.
    """

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder
        self._listeners: list[OnSpan] = []
        app = Starlette(routes=[Route("/v1/traces", self._receive, methods=["POST"])])
        self._server = Server(app, name="span relay")

    @property
    def url(self) -> str:
        """Where spans are to be sent."""
        return f"{self._server.url}/v1/traces"

    def environment(self, traceparent: str) -> Mapping[str, str]:
        """Return what makes vLLM's processes export their spans here, below `traceparent`, as soon as they end.

        Source: vllm/tracing/otel.py (the protocol variable is the traces one), OpenTelemetry's batch span processor.
        """
        return {
            "TRACEPARENT": traceparent,
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": self.url,
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        }

    def listen(self, on_span: OnSpan) -> Callable[[], None]:
        """Have `on_span` called, in the relay's thread, for each span that arrives; return what ends that."""
        self._listeners.append(on_span)
        return lambda: self._listeners.remove(on_span)

    def start(self) -> None:
        """Begin to receive."""
        self._server.start()

    def close(self) -> None:
        """Receive no more, and hand on what is left."""
        self._server.close()
        self._forwarder.close()

    async def _receive(self, request: Request) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MOST_BYTES:
                return PlainTextResponse("too large\n", status_code=413)
        try:
            whole = gzip.decompress(bytes(body)) if request.headers.get("content-encoding") == "gzip" else bytes(body)
            export = ExportTraceServiceRequest.FromString(whole)
        except (DecodeError, OSError, EOFError):
            return PlainTextResponse("this is not an OTLP trace request in protobuf\n", status_code=400)
        self._forwarder.send(export)
        for span in read_spans(export):
            for listener in tuple(self._listeners):
                try:
                    listener(span)
                except Exception:
                    logger.exception("a listener failed on the span %r", span.name)
        answer = ExportTraceServiceResponse().SerializeToString()
        return Response(answer, media_type="application/x-protobuf")
