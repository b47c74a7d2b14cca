"""The address that an engine's processes tell of their steps at: spans by OTLP, and notices of their beginnings."""

from __future__ import annotations

import asyncio
import gzip
import logging
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from phasebus.telemetry.relay.forward import Forwarder
from phasebus.telemetry.relay.notices import IterationsNotice, StepNotice, read_notices
from phasebus.telemetry.relay.spans import EngineSpan, read_spans
from phasebus.telemetry.service.server import Server

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

logger = logging.getLogger("phasebus.telemetry")

_MOST_BYTES = 64 * 1024 * 1024

_GATE_LOOKS, _GATE_SECONDS = 100, 0.1

Told = EngineSpan | StepNotice | IterationsNotice
Listener = Callable[[Told], None]


class Relay:
    """Receives spans and notices, hands the spans on, and gives both to whoever listens.

    Args:
        forwarder: Hands each request of spans on, as it came.
        host: The address it listens on; one that others reach, where the engine has processes on other machines.
    """

    def __init__(self, forwarder: Forwarder, host: str = "127.0.0.1") -> None:
        self._forwarder = forwarder
        self._listeners: list[Listener] = []
        self._receives = False
        self._gate = threading.Event()
        self._gate.set()
        self._server = Server(self._app, host, name="span relay")

    @property
    def url(self) -> str:
        """Where spans are to be sent."""
        return f"{self._server.url}/v1/traces"

    @property
    def notices_url(self) -> str:
        """Where notices are to be sent."""
        return f"{self._server.url}/v1/steps"

    @property
    def gate_url(self) -> str:
        """Where an engine may ask whether to go on: answered with 200 once the gate is open, else with 204 in a while."""
        return f"{self._server.url}/v1/gate"

    def close_gate(self) -> None:
        """Have engines wait that ask whether to go on."""
        self._gate.clear()

    def open_gate(self) -> None:
        """Have them go on."""
        self._gate.set()

    def environment(self) -> Mapping[str, str]:
        """Return what makes vLLM's processes export their spans here, as soon as they end; from now on it receives.

        Source: vllm/tracing/otel.py (the protocol variable is the traces one), OpenTelemetry's batch span processor.
        """
        self.start()
        return {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": self.url,
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        }

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Have `listener` called, in the relay's thread, for all that arrives; return what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def start(self) -> None:
        """Begin to receive. May be called again, from one thread."""
        if not self._receives:
            self._receives = True
            self._server.start()

    def close(self) -> None:
        """Receive no more, and hand on what is left."""
        self._server.close()
        self._forwarder.close()

    def _app(self) -> Starlette:
        from starlette.applications import Starlette
        from starlette.routing import Route

        return Starlette(
            routes=[
                Route("/v1/traces", self._receive_spans, methods=["POST"]),
                Route("/v1/steps", self._receive_notices, methods=["POST"]),
                Route("/v1/gate", self._stand_at_gate, methods=["GET"]),
            ]
        )

    async def _receive_spans(self, request: Request) -> Response:
        from google.protobuf.message import DecodeError
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceRequest,
            ExportTraceServiceResponse,
        )
        from starlette.responses import PlainTextResponse, Response

        body = await _body(request)
        if body is None:
            return PlainTextResponse("too large\n", status_code=413)
        try:
            whole = gzip.decompress(body) if request.headers.get("content-encoding") == "gzip" else body
            export = ExportTraceServiceRequest.FromString(whole)
        except (DecodeError, OSError, EOFError):
            return PlainTextResponse("this is not an OTLP trace request in protobuf\n", status_code=400)
        self._forwarder.send(export)
        for span in read_spans(export):
            self.tell(span)
        answer = ExportTraceServiceResponse().SerializeToString()
        return Response(answer, media_type="application/x-protobuf")

    async def _receive_notices(self, request: Request) -> Response:
        from starlette.responses import PlainTextResponse, Response

        body = await _body(request)
        if body is None:
            return PlainTextResponse("too large\n", status_code=413)
        try:
            notices = tuple(read_notices(body))
        except ValueError:
            return PlainTextResponse("these are not notices of steps, one JSON object a line\n", status_code=400)
        for notice in notices:
            self.tell(notice)
        return Response(status_code=204)

    async def _stand_at_gate(self, _: Request) -> Response:
        from starlette.responses import Response

        for _look in range(_GATE_LOOKS):
            if self._gate.is_set():
                return Response(status_code=200)
            await asyncio.sleep(_GATE_SECONDS)
        return Response(status_code=204)

    def tell(self, told: Told) -> None:
        """Give something to those who listen, as if it had arrived."""
        for listener in tuple(self._listeners):
            try:
                listener(told)
            except Exception:
                logger.exception("a listener failed on the step %r", told.name)


async def _body(request: Request) -> bytes | None:
    """Return the body of `request`; None if it is larger than anything meant."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            return None
    return bytes(body)
