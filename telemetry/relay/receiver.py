"""The server that receives the reports of an engine's processes: spans by OTLP, and notices of current events."""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from phasebus.telemetry.redaction import learn_secret
from phasebus.telemetry.relay.notices import Notice, NoticeReader
from phasebus.telemetry.relay.spans import EngineSpan, read_spans, reject_spans, remove_spans
from phasebus.telemetry.service.access import NO_TOKEN, Access
from phasebus.telemetry.service.limits import Limits
from phasebus.telemetry.service.server import Server

if TYPE_CHECKING:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from phasebus.telemetry.relay.forward import SpanForwarder

logger = logging.getLogger("phasebus.telemetry")

MOST_BYTES: Final = 16 * 1024 * 1024
"""Maximum size of a request before and after decompression; a batch of OpenTelemetry's exporters has 0.5 MiB."""

_SPANS: Final = frozenset({"application/x-protobuf"})
_NOTICES: Final = frozenset({"application/x-ndjson", "application/json"})

_GATE_LOOKS, _GATE_SECONDS = 100, 0.1

Received = EngineSpan | Notice
Listener = Callable[[Received], None]
Claim = Callable[[EngineSpan], bool]


class Relay:
    """Receives spans and notices from processes that send its token. It answers each request before it calls the listeners.

    Invalid spans, notices and requests are rejected and counted; the first one is logged as a warning.

    Args:
        forwarder: Exports the spans; with None, only the listeners receive them.
        host: The address it listens on. An engine with processes on other machines needs one that they can reach.

    Attributes:
        token: The token that a request has in its path or as a bearer token; each relay has a new one.
        rejected: The number of invalid spans, notices and requests.
        is_bypassed: Whether the engine's processes export to the user's collector instead.
    """

    def __init__(self, forwarder: SpanForwarder | None = None, host: str = "127.0.0.1") -> None:
        self.token = secrets.token_urlsafe(24)
        learn_secret(self.token)  # the engine logs the URL of its exporter
        self.rejected = 0
        self.is_bypassed = False
        self._forwarder = forwarder
        self._notices = NoticeReader()
        self._listeners: list[Listener] = []
        self._failed: set[Listener] = set()
        self._claims: list[Claim] = []
        self._receives = False
        self._gate = threading.Event()
        self._gate.set()
        # it has a token of its own, and an engine's processes report whatever happens in them
        access = Access(token=NO_TOKEN)
        self._server = Server(
            self._app, host, name="span relay", access=access, limits=Limits(requests_per_second=None)
        )

    @property
    def host(self) -> str:
        """The address it listens on."""
        return self._server.host

    @property
    def url(self) -> str:
        """The URL for spans. It contains the token, because the user sets OpenTelemetry's headers."""
        return f"{self._server.url}/{self.token}/v1/traces"

    @property
    def notices_url(self) -> str:
        """The URL for notices, which are sent with the token in a header."""
        return f"{self._server.url}/v1/steps"

    @property
    def gate_url(self) -> str:
        """The URL at which an engine asks whether to continue, with the token in a header.

        The answer is 200 once the gate is open, else 204 after some seconds.
        """
        return f"{self._server.url}/v1/gate"

    def close_gate(self) -> None:
        """Make an engine that asks whether to continue wait."""
        self._gate.clear()

    def open_gate(self) -> None:
        """Let waiting engines continue."""
        self._gate.set()

    def environment(self) -> Mapping[str, str]:
        """Start to receive; return the variables that make a process export each span here when it ends.

        Source: OpenTelemetry specification, "OTLP exporter configuration" and "Batch span processor". vLLM reads the
        protocol of traces only.
        """
        self.start()
        return {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": self.url,
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        }

    def accept(self, event: str, model: type[Notice]) -> bool:
        """Accept the notices of another event; return False if they are accepted already."""
        return self._notices.register(event, model)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` in the relay's thread with each span and notice; return a function that ends this."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def claim(self, claim: Claim) -> None:
        """Do not forward the spans for which `claim` returns True: a step stands for each, and has a span of its own.

        It is called in the relay's thread, before the listeners.
        """
        self._claims.append(claim)

    def publish(self, received: Received) -> None:
        """Pass a span or a notice to the listeners, as if it had been received."""
        for listener in tuple(self._listeners):
            try:
                listener(received)
            except Exception:
                if listener not in self._failed:
                    self._failed.add(listener)
                    logger.exception("a listener of the relay failed on %s", type(received).__name__)

    def start(self) -> None:
        """Start to receive. Further calls, from the same thread, have no effect."""
        if not self._receives:
            self._receives = True
            self._server.start()

    def close(self) -> None:
        """Stop receiving."""
        self._server.close()

    def _app(self) -> Starlette:
        from starlette.applications import Starlette
        from starlette.routing import Route

        return Starlette(
            routes=[
                Route("/{token}/v1/traces", self._receive_spans, methods=["POST"]),
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
        from starlette.background import BackgroundTask
        from starlette.responses import Response

        body = await self._body(request, _SPANS)
        if isinstance(body, Response):
            return body
        try:
            export = ExportTraceServiceRequest.FromString(body)
        except (DecodeError, RecursionError):
            return self._refuse(400, "this is not an OTLP trace request in protobuf")
        faults = reject_spans(export)
        self._count(faults)
        answer = ExportTraceServiceResponse()
        if faults:
            answer.partial_success.rejected_spans = len(faults)
            answer.partial_success.error_message = faults[0]
        return Response(
            answer.SerializeToString(),
            media_type="application/x-protobuf",
            background=BackgroundTask(self._pass_on_spans, export, local=self._is_local(request)),
        )

    async def _pass_on_spans(self, export: ExportTraceServiceRequest, *, local: bool) -> None:
        arrived = [span for span in read_spans(export) if span.start_ns]  # a span without times describes no step
        try:
            claimed = {(span.trace, span.span) for span in arrived if any(claim(span) for claim in self._claims)}
            if self._forwarder is not None:
                remove_spans(export, claimed)
                self._forwarder.send(export, local=local)
        except Exception as error:  # noqa: BLE001  # no request may prevent the next one
            self._count([f"{type(error).__name__}: {error}"])
        for span in arrived:
            self.publish(span)

    async def _receive_notices(self, request: Request) -> Response:
        from starlette.background import BackgroundTask
        from starlette.responses import Response

        body = await self._body(request, _NOTICES)
        if isinstance(body, Response):
            return body
        notices, faults = self._notices.read(body)
        if faults and not notices:
            return self._refuse(400, "these are not notices, one JSON object a line", len(faults))
        self._count(faults)
        return Response(status_code=204, background=BackgroundTask(self._pass_on_notices, notices))

    async def _pass_on_notices(self, notices: Sequence[Notice]) -> None:
        for notice in notices:
            self.publish(notice)

    async def _stand_at_gate(self, request: Request) -> Response:
        from starlette.responses import Response

        if not self._knows_token(request):
            return self._refuse(401, "the token of the relay is missing")
        for _look in range(_GATE_LOOKS):
            if self._gate.is_set():
                return Response(status_code=200)
            await asyncio.sleep(_GATE_SECONDS)
        return Response(status_code=204)

    async def _body(self, request: Request, content_types: frozenset[str]) -> bytes | Response:
        """Return the decompressed body of `request`, or the response that rejects it."""
        if not self._knows_token(request):
            return self._refuse(401, "the token of the relay is missing")
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() not in content_types:
            return self._refuse(415, f"the content type is none of {', '.join(sorted(content_types))}")
        encoding = request.headers.get("content-encoding", "identity").lower()
        if encoding not in ("gzip", "identity"):
            return self._refuse(415, "the content encoding is neither gzip nor identity")
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_BYTES:
                return self._refuse(413, "the request is too large")
        if encoding == "identity":
            return bytes(body)
        try:
            whole = _decompressed(bytes(body))
        except zlib.error:
            return self._refuse(400, "this is not gzip")
        return self._refuse(413, "the request is too large when decompressed") if whole is None else whole

    def _knows_token(self, request: Request) -> bool:
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        given = request.path_params.get("token") or (bearer if scheme.lower() == "bearer" else "")
        return hmac.compare_digest(given.encode(), self.token.encode())

    def _is_local(self, request: Request) -> bool:
        return request.client is not None and request.client.host in ("127.0.0.1", "::1", self._server.host)

    def _refuse(self, status: int, why: str, count: int = 1) -> Response:
        from starlette.responses import PlainTextResponse

        self._count([why] * count)
        return PlainTextResponse(f"{why}\n", status_code=status)

    def _count(self, faults: Sequence[str]) -> None:
        if faults and not self.rejected:
            logger.warning("the relay rejects what is not valid; the first: %.200s", faults[0])
        self.rejected += len(faults)


def _decompressed(body: bytes) -> bytes | None:
    """Return gzipped `body`; None if it is larger than `MOST_BYTES`.

    Raises:
        zlib.error: It is not gzip, or ends early.
    """
    decompressor = zlib.decompressobj(wbits=31)
    whole = decompressor.decompress(body, MOST_BYTES + 1)
    if len(whole) > MOST_BYTES:
        return None
    if not decompressor.eof:
        raise zlib.error("it ends early")
    return whole
