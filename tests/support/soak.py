"""A long life of the HTTP middleware, with every built-in observer: ``python -m tests.support.soak REQUESTS TRACED``.

Prints the resident memory in bytes after a quarter, a half and all of the requests. TRACED is the number of requests a second
that are reported as steps.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from phasebus.bus import Context
from phasebus.initializer.integrations.serving import (
    RESPONSE,
    PostRequest,
    PreRequest,
    ServingConfig,
    ServingMiddleware,
)
from phasebus.observers import JournalObserver, MetricsObserver, SpanObserver, StatusObserver, TimelineObserver
from phasebus.telemetry import Metrics, RunIdentity, Status, Timeline
from phasebus.telemetry.journal import JournalWriter
from phasebus.telemetry.otel.queue import SpanQueue
from phasebus.telemetry.otel.settings import SpanBatches
from phasebus.telemetry.timeline import Capacity
from phasebus.telemetry.tracing import Tracing

_PAUSE = 0.02  # seconds after a hundred requests
_FASTEST = 1e6  # requests a second


class _Counting(SpanExporter):
    """Counts the spans and drops them."""

    def __init__(self) -> None:
        self.count = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.count += len(spans)
        return SpanExportResult.SUCCESS


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve a request, or a lifespan."""
    if scope["type"] == "lifespan":
        for event in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{event}.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


async def postprocess(event: PostRequest, context: Context) -> None:
    """Set a header."""
    context[RESPONSE].headers["x-served-by"] = "phasebus"


async def preprocess(event: PreRequest, context: Context) -> None:
    """Add a value to the context of the request."""
    context["tenant"] = "blue"


WHOLE = Capacity()


@asynccontextmanager
async def soaked(journal: Path, traced_per_second: float, capacity: Capacity = WHOLE) -> AsyncIterator[Any]:
    """Run the middleware with every built-in observer; give what sends it a number of requests."""
    identity, metrics = RunIdentity.fresh("soak", {}), Metrics("1")
    exporter = _Counting()
    batches = SpanBatches(batch=8, delay=0.01)  # the last batch is kept until there is another one
    tracing = Tracing(identity, queues=[SpanQueue(exporter, "nothing", batches, lambda thread: thread.join())])
    observers = (
        MetricsObserver(metrics, identity.trace),
        SpanObserver(tracing),
        TimelineObserver(Timeline(identity, capacity=capacity)),
        StatusObserver(Status(), metrics),
        JournalObserver(JournalWriter(journal, identity)),
    )
    config = ServingConfig(
        callbacks=[preprocess, postprocess, *observers], traced_requests_per_second=traced_per_second
    )
    app = ServingMiddleware(answer, config)
    every_request_is_a_step = traced_per_second > _FASTEST
    events = 0

    async def send(requests: int) -> None:
        await _send(app, requests, _PAUSE if every_request_is_a_step else 0.0)  # else the observers would drop steps
        nonlocal events
        events += 2 * requests if every_request_is_a_step else 0
        while min(_observed(app)) < events or 2 * (exporter.count + tracing.dropped) < events:  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    async with _lifespan(app):
        yield send
    tracing.close()


def _observed(app: ServingMiddleware) -> list[int]:
    """Return the number of events that each observer has received."""
    stats = app._here.reporters[-1]._bus.stats()
    return [each.calls + each.drops for each in stats if each.role == "observer"]


async def _send(app: ASGIApp, requests: int, pause: float) -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None: ...

    for number in range(requests):
        path = f"/v1/{number}"
        headers = [(b"host", b"localhost"), (b"x-request-id", str(number).encode())]
        scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b""}
        await app({**scope, "headers": headers, "http_version": "1.1", "root_path": ""}, receive, send)
        if number % 100 == 99:
            await asyncio.sleep(pause)


@asynccontextmanager
async def _lifespan(app: ASGIApp) -> AsyncIterator[None]:
    sent: asyncio.Queue[Message] = asyncio.Queue()
    received: asyncio.Queue[Message] = asyncio.Queue()
    serving: Any = app({"type": "lifespan"}, sent.get, received.put)
    running = asyncio.create_task(serving)
    for event in ("startup", "shutdown"):
        await sent.put({"type": f"lifespan.{event}"})
        assert (await received.get())["type"] == f"lifespan.{event}.complete"
        if event == "startup":
            yield
    await running


async def main(requests: int, traced_per_second: float) -> None:
    """Serve `requests`, and print the memory."""
    with tempfile.TemporaryDirectory() as folder:
        async with soaked(Path(folder) / "soak.jsonl", traced_per_second) as send:
            for share in (4, 4, 2):
                await send(requests // share)
                gc.collect()
                print(psutil.Process().memory_info().rss, flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
