"""The routes of the service: metrics, probes, the page, and the server-sent events that keep the page current.

Format of the events: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from phasebus.telemetry.metrics import Metrics
from phasebus.telemetry.service.page import content_security_policy, page
from phasebus.telemetry.status import Status
from phasebus.telemetry.timeline import ENCODED_AT_ONCE, MOST_STEPS, Timeline

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

INTERVAL = 0.25
"""Seconds between two events of changes."""

_LARGE_CHANGE = 50_000
"""Characters of changes above which the interval is four times as long."""

_HEARTBEAT = 10.0
"""Seconds without a change after which a comment keeps the connection open."""

MAX_READERS = 64
"""Readers of the event stream at a time; more are answered with 503."""

_PIECE = 65_536
"""Characters that are written before a reader has read the ones before."""

_SHARED_SECONDS = 1.0
"""Seconds for which the state of many steps is reused for other readers."""

_RETRY = 2000
"""Milliseconds after which a disconnected reader reconnects."""

_UNCACHED = {"Cache-Control": "no-store"}


def build_app(metrics: Metrics, status: Status, timeline: Timeline) -> Starlette:
    """Return the application with /metrics, the probes /livez and /readyz, and the routes of the page.

    The probes answer as those of Kubernetes' API server do: 200 for yes, 503 for no or not yet.
    """
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route

    async def render_metrics(request: Request) -> Response:
        body, content_type = metrics.render(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type})

    async def livez(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        return JSONResponse(status.describe(), status_code=200 if status.ready else 503)

    return Starlette(
        routes=[
            *page_routes(timeline),
            Route("/metrics", render_metrics),
            Route("/livez", livez),
            Route("/readyz", readyz),
        ]
    )


def page_routes(timeline: Timeline) -> list[Route]:
    """Return the routes of the page: / is the document, /events its event stream, /timeline the current state."""
    from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Route

    async def document(_: Request) -> Response:
        return HTMLResponse(page(), headers={"Content-Security-Policy": content_security_policy(), **_UNCACHED})

    readers: set[object] = set()
    shared = _SharedState(timeline)

    async def events(request: Request) -> Response:
        if len(readers) >= MAX_READERS:
            return PlainTextResponse("too many readers\n", 503, {"Retry-After": "5", **_UNCACHED})
        headers = {"X-Accel-Buffering": "no", **_UNCACHED}
        if request.method == "HEAD":
            return Response(media_type="text/event-stream", headers=headers)

        async def read() -> AsyncIterator[str]:
            reader = object()
            readers.add(reader)
            try:
                async for event in stream(timeline, request.headers.get("last-event-id"), shared):
                    async for piece in _pieces(event):
                        yield piece
            finally:
                readers.discard(reader)

        return StreamingResponse(read(), media_type="text/event-stream", headers=headers)

    async def state(_: Request) -> Response:
        encoded = await shared.encoded()
        return StreamingResponse(_pieces(encoded[1]), media_type="application/json", headers=_UNCACHED)

    return [Route("/", document), Route("/events", events), Route("/timeline", state)]


async def stream(
    timeline: Timeline, last_event_id: str | None = None, shared: _SharedState | None = None
) -> AsyncIterator[str]:
    """Yield the events for one reader: ``state`` first, then ``change``, and ``closed`` last.

    Args:
        timeline: The source of the events.
        last_event_id: The id of the last event that a reconnecting reader received.
        shared: The state that readers who come at the same time share.
    """
    yield f"retry: {_RETRY}\n\n"
    version = _known_version(timeline, last_event_id)
    if version is None:
        version, state = await (shared or _SharedState(timeline)).encoded()
        yield _event(timeline, "state", version, state)
    last_sent = time.monotonic()
    while True:
        closed = timeline.closed  # read before the last changes are
        pause = INTERVAL
        if timeline.version != version:
            await _encode(timeline)
            version, changes = timeline.changes(version)
            yield _event(timeline, "change", version, changes)
            last_sent = time.monotonic()
            pause = INTERVAL if len(changes) < _LARGE_CHANGE else 4 * INTERVAL
        elif time.monotonic() - last_sent > _HEARTBEAT:
            yield ": heartbeat\n\n"
            last_sent = time.monotonic()
        if closed:
            yield _event(timeline, "closed", version, json.dumps({"now": time.time()}))
            return
        await asyncio.sleep(pause)


class _SharedState:
    """The state of a timeline as JSON, the same for all readers within a second, and encoded without blocking others."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._expires = -math.inf
        self._encoded = (-1, "")

    async def encoded(self) -> tuple[int, str]:
        """Return the version and the state."""
        await _encode(self._timeline)
        if self._timeline.version != self._encoded[0] and (time.monotonic() > self._expires or self._timeline.closed):
            self._encoded = self._timeline.encoded_state()
            self._expires = time.monotonic() + (_SHARED_SECONDS if len(self._encoded[1]) > _LARGE_CHANGE else 0)
        return self._encoded


async def _encode(timeline: Timeline) -> None:
    """Encode the changed steps, a number at a time, so that other requests are answered meanwhile."""
    for _ in range(MOST_STEPS // ENCODED_AT_ONCE):
        if not timeline.encode_some():
            return
        await asyncio.sleep(0)


async def _pieces(text: str) -> AsyncIterator[str]:
    for at in range(0, len(text), _PIECE):
        yield text[at : at + _PIECE]


def _event(timeline: Timeline, name: str, version: int, data: str) -> str:
    return f"event: {name}\nid: {timeline.epoch}:{version}\ndata: {data}\n\n"


def _known_version(timeline: Timeline, last_event_id: str | None) -> int | None:
    """Return the version of `timeline` that the reader has; None if it has none."""
    epoch, _, version = (last_event_id or "").rpartition(":")
    if epoch != timeline.epoch or not version.isascii() or not version.isdigit() or len(version) > 18:
        return None
    return int(version) if int(version) <= timeline.version else None
