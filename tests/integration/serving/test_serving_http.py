"""The middleware behind a real HTTP server, with a real client."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import anyio
import httpx
import uvicorn
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from starlette.requests import Request as AppRequest
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from phasebus.bus import Context
from phasebus.initializer.integrations.serving import RESPONSE, PostRequest, ServingConfig, ServingMiddleware
from phasebus.observers import MetricsObserver, SpanObserver
from phasebus.telemetry import Metrics, RunIdentity, Tracing
from tests.support.programs import free_port
from tests.support.waiting import wait_until


@contextmanager
def served(app: ASGIApp) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=free_port(), log_level="warning", lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, "the server has started")
        yield f"http://127.0.0.1:{server.config.port}"
    finally:
        server.should_exit = True
        thread.join(30)


def test_a_stream_is_still_one_each_chunk_leaves_before_the_next_is_made() -> None:
    received = threading.Event()

    async def tokens() -> AsyncIterator[bytes]:
        yield b"first "
        # would wait for ever, if the middleware held the first chunk back
        assert await anyio.to_thread.run_sync(received.wait, 60)
        yield b"second"

    async def endpoint(request: AppRequest) -> Response:
        return StreamingResponse(tokens(), media_type="text/plain")

    def shout(event: PostRequest, context: Context) -> None:
        context[RESPONSE].each_chunk(bytes.upper)

    exporter, metrics = InMemorySpanExporter(), Metrics()
    tracing = Tracing(RunIdentity.fresh("n", {}), exporter)
    config = ServingConfig(callbacks=[shout, MetricsObserver(metrics), SpanObserver(tracing)], name="chat")
    app = Starlette(routes=[Route("/generate", endpoint)])
    app.add_middleware(ServingMiddleware, config=config)
    with served(app) as url, httpx.stream("GET", f"{url}/generate", timeout=60) as response:
        chunks = response.iter_raw()
        assert next(chunks) == b"FIRST "
        received.set()
        assert next(chunks) == b"SECOND"
    tracing.close()
    (span,) = exporter.get_finished_spans()
    assert span.name == "request chat"
    assert (span.attributes or {})["phasebus.route"] == "/generate"
    labels = {"application": "chat", "method": "GET"}
    assert metrics.registry.get_sample_value("phasebus_request_duration_seconds_count", labels) == 1
