"""The routes of the service: metrics, probes, the page, and the server-sent events that keep the page current.

Format of the events: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from phasebus.clock import now_ns
from phasebus.telemetry.metrics import Metrics
from phasebus.telemetry.own_threads import OWN_THREADS
from phasebus.telemetry.service.access import visible_status
from phasebus.telemetry.service.exports import export_routes
from phasebus.telemetry.service.limits import connection_limit
from phasebus.telemetry.service.page import content_security_policy, page
from phasebus.telemetry.status import Status
from phasebus.telemetry.timeline import Timeline

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

INTERVAL = 0.25
"""Seconds between two events of changes."""

_HEARTBEAT = 10.0
"""Seconds without a change after which a comment keeps the connection open."""

MAX_READERS = 64
"""Readers of the steps at a time, and at most half of the connections; more are answered with 503."""

_PART = 65_536
"""Characters of steps in one event, and at most one step more: what the process keeps for a reader that does not read."""

_RETRY = 2000
"""Milliseconds after which a disconnected reader reconnects."""

_UNCACHED = {"Cache-Control": "no-store"}


def build_app(metrics: Metrics, status: Status, timeline: Timeline, *, max_readers: int | None = None) -> Starlette:
    """Return the application with /metrics, the probes /livez and /readyz, and the routes of the page.

    The probes answer as those of Kubernetes' API server do: 200 for yes, 503 for no or not yet.

    Args:
        metrics: Rendered by /metrics.
        status: Answers the probes.
        timeline: Shown by the page.
        max_readers: Readers of the steps at a time; more are answered with 503; by default that of `Readers`.
    """
    import anyio
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route

    alone = anyio.CapacityLimiter(1)  # many series take a second of a processor

    def rendered(accept: str) -> tuple[bytes, str]:
        with OWN_THREADS.counted():
            return metrics.render(accept)

    async def render_metrics(request: Request) -> Response:
        accept = request.headers.get("accept", "")
        body, content_type = await anyio.to_thread.run_sync(rendered, accept, limiter=alone)
        return Response(body, headers={"Content-Type": content_type})

    async def livez(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        described = visible_status(request.scope, {**status.describe(), "remaining": timeline.remaining})
        return JSONResponse(described, status_code=200 if described["status"] == "ready" else 503)

    return Starlette(
        routes=[
            *page_routes(timeline, max_readers=max_readers),
            Route("/metrics", render_metrics),
            Route("/livez", livez),
            Route("/readyz", readyz),
        ]
    )


def page_routes(timeline: Timeline, *, max_readers: int | None = None) -> list[Route]:
    """Return the routes of the page: / is the document, /events its event stream, /timeline the current state, and its exports."""
    from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Route

    async def document(_: Request) -> Response:
        return HTMLResponse(page(), headers={"Content-Security-Policy": content_security_policy(), **_UNCACHED})

    readers = Readers(max_readers)

    async def events(request: Request) -> Response:
        headers = {"X-Accel-Buffering": "no", **_UNCACHED}
        if request.method == "HEAD" and not readers.full:
            return Response(media_type="text/event-stream", headers=headers)
        received = stream(timeline, request.headers.get("last-event-id"), readers.turn)
        return answer(received, "text/event-stream", headers)

    async def state(_: Request) -> Response:
        return answer(whole_state(timeline, readers.turn), "application/json", _UNCACHED)

    def answer(text: AsyncIterator[str], media_type: str, headers: dict[str, str]) -> Response:
        if readers.full:
            return PlainTextResponse(
                "too many readers\n", 503, {"Retry-After": "5", "Connection": "close", **_UNCACHED}
            )
        return StreamingResponse(readers.count(text), media_type=media_type, headers=headers)

    return [
        Route("/", document),
        Route("/events", events),
        Route("/timeline", state),
        *export_routes(timeline),
    ]


class Readers:
    """The readers of the steps. One of them encodes at a time, so that other requests wait for one part at most.

    Attributes:
        turn: Held by the reader that encodes.

    Args:
        limit: Their number at a time; by default `MAX_READERS`, or half of the connections if those are fewer.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.turn = asyncio.Lock()
        self._count = 0
        self._limit = min(MAX_READERS, connection_limit() // 2) if limit is None else limit

    @property
    def full(self) -> bool:
        """Whether there may be no more."""
        return self._count >= self._limit

    async def count(self, text: AsyncIterator[str]) -> AsyncIterator[str]:
        """Yield `text`, whose reader counts until the end; yield nothing if others came first."""
        if self.full:
            return
        self._count += 1
        try:
            async for part in text:
                yield part
        finally:
            self._count -= 1


async def stream(
    timeline: Timeline, last_event_id: str | None = None, turn: asyncio.Lock | None = None
) -> AsyncIterator[str]:
    """Yield the events for one reader: ``state`` first, then ``change``, and ``closed`` last.

    A state of many steps is a ``state`` with the first ones and a ``change`` for the others; the last of these events has
    the id.

    Args:
        timeline: The source of the events.
        last_event_id: The id of the last event that a reconnecting reader received.
        turn: Held while a part is encoded; shared by the readers of a service.
    """
    turn = turn or asyncio.Lock()
    yield f"retry: {_RETRY}\n\n"
    version = _known_version(timeline, last_event_id)
    last_sent = time.monotonic()
    while True:
        closed = timeline.closed  # read before the last changes are
        if version is None or not timeline.is_resumable(version):
            version, about, ids = timeline.contents()
            name, at = "state", 0
            while name == "state" or at < len(ids):
                async with _turn(turn):
                    steps, at = timeline.encoded_steps(ids, at, _PART)
                data = f'{about[:-1]}, "steps": [{steps}]}}' if name == "state" else timeline.encoded_now(steps)
                yield _event(timeline, name, version if at == len(ids) else None, data)
                name = "change"
            last_sent = time.monotonic()
        newest, parts = timeline.version, 0
        while version < newest and timeline.is_resumable(version):
            async with _turn(turn):
                version, changes = timeline.changes(version, _PART)
            yield _event(timeline, "change", version, changes)
            last_sent = time.monotonic()
            parts += 1
        if closed and timeline.is_resumable(version):
            yield _event(timeline, "closed", version, json.dumps({"now": now_ns() / 1e9}))
            return
        if time.monotonic() - last_sent > _HEARTBEAT:
            yield ": heartbeat\n\n"
            last_sent = time.monotonic()
        await asyncio.sleep(INTERVAL if parts < 2 else 4 * INTERVAL)


async def whole_state(timeline: Timeline, turn: asyncio.Lock) -> AsyncIterator[str]:
    """Yield the state of `timeline` as JSON, in parts."""
    _, about, ids = timeline.contents()
    yield f'{about[:-1]}, "steps": ['
    at, separator = 0, ""
    while at < len(ids):
        async with _turn(turn):
            steps, at = timeline.encoded_steps(ids, at, _PART)
        if steps:  # not if all of them have been evicted
            yield separator + steps
            separator = ","
    yield "]}"


@asynccontextmanager
async def _turn(turn: asyncio.Lock) -> AsyncIterator[None]:
    """Wait for the turn of a reader; the next one has its turn when other requests had theirs."""
    async with turn:
        yield
        await asyncio.sleep(0)


def _event(timeline: Timeline, name: str, version: int | None, data: str) -> str:
    id_ = "" if version is None else f"id: {timeline.epoch}:{version}\n"
    return f"event: {name}\n{id_}data: {data}\n\n"


def _known_version(timeline: Timeline, last_event_id: str | None) -> int | None:
    """Return the version of `timeline` that the reader has; None if it has none."""
    epoch, _, version = (last_event_id or "").rpartition(":")
    if epoch != timeline.epoch or not version.isascii() or not version.isdigit() or len(version) > 18:
        return None
    return int(version)
