"""The routes of the service: metrics, probes, the page, and the server-sent events that keep the page current.

Format of the events: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from phasebus.telemetry.metrics import Metrics
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

_LARGE_CHANGE = 50_000
"""Characters of changes above which the interval is four times as long."""

_HEARTBEAT = 10.0
"""Seconds without a change after which a comment keeps the connection open."""

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
    from starlette.responses import HTMLResponse, JSONResponse, StreamingResponse
    from starlette.routing import Route

    async def document(_: Request) -> Response:
        return HTMLResponse(page(), headers={"Content-Security-Policy": content_security_policy(), **_UNCACHED})

    async def events(request: Request) -> Response:
        body = stream(timeline, request.headers.get("last-event-id"))
        return StreamingResponse(body, media_type="text/event-stream", headers={"X-Accel-Buffering": "no", **_UNCACHED})

    async def state(_: Request) -> Response:
        return JSONResponse(timeline.state(), headers=_UNCACHED)

    return [Route("/", document), Route("/events", events), Route("/timeline", state)]


async def stream(timeline: Timeline, last_event_id: str | None = None) -> AsyncIterator[str]:
    """Yield the events for one reader: ``state`` first, then ``change``, and ``closed`` last.

    Args:
        timeline: The source of the events.
        last_event_id: The id of the last event that a reconnecting reader received.
    """
    yield f"retry: {_RETRY}\n\n"
    version = _known_version(timeline, last_event_id)
    if version is None:
        state = timeline.state()
        version = int(state["version"])
        yield _event(timeline, "state", version, json.dumps(state, ensure_ascii=False))
    last_sent = time.monotonic()
    while True:
        closed = timeline.closed  # read before the last changes are
        pause = INTERVAL
        if timeline.version != version:
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


def _event(timeline: Timeline, name: str, version: int, data: str) -> str:
    return f"event: {name}\nid: {timeline.epoch}:{version}\ndata: {data}\n\n"


def _known_version(timeline: Timeline, last_event_id: str | None) -> int | None:
    """Return the version of `timeline` that the reader has; None if it has none."""
    epoch, _, version = (last_event_id or "").rpartition(":")
    if epoch != timeline.epoch or not version.isascii() or not version.isdigit() or len(version) > 18:
        return None
    return int(version) if int(version) <= timeline.version else None
