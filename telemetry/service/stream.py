"""The page, and what it is told by server-sent events: the timeline as it stands, then what changes in it.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from phasebus.telemetry.service.page import content_security_policy, page
from phasebus.telemetry.timeline import Timeline

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

INTERVAL = 0.25
"""How often a reader is told of changes, in seconds."""

_MANY = 50_000
"""How many characters of changes at once are reason to tell them less often."""

_HEARTBEAT = 10.0
"""After how many seconds without a change a reader is told that the connection stands."""

_RETRY = 2000
"""After how many milliseconds a reader that has lost the connection is to try again."""

_UNCACHED = {"Cache-Control": "no-store"}


def page_routes(timeline: Timeline) -> list[Route]:
    """Return the routes of the page at /, of what it hears of `timeline` at /events, and of the same at once at /timeline."""
    from starlette.responses import HTMLResponse, JSONResponse, StreamingResponse
    from starlette.routing import Route

    async def show(_: Request) -> Response:
        return HTMLResponse(page(), headers={"Content-Security-Policy": content_security_policy(), **_UNCACHED})

    async def events(request: Request) -> Response:
        told = stream(timeline, request.headers.get("last-event-id"))
        return StreamingResponse(told, media_type="text/event-stream", headers={"X-Accel-Buffering": "no", **_UNCACHED})

    async def at_once(_: Request) -> Response:
        return JSONResponse(timeline.state(), headers=_UNCACHED)

    return [Route("/", show), Route("/events", events), Route("/timeline", at_once)]


async def stream(timeline: Timeline, last_seen: str | None = None) -> AsyncIterator[str]:
    """Yield the events for one reader: ``state`` first, ``change`` from then on, ``closed`` at the end.

    Args:
        timeline: What the reader is told of.
        last_seen: The id of the last event the reader has seen before it lost the connection.
    """
    yield f"retry: {_RETRY}\n\n"
    version = _known(timeline, last_seen)
    if version is None:
        state = timeline.state()
        version = int(state["version"])
        yield _event(timeline, "state", version, json.dumps(state, ensure_ascii=False))
    spoke = time.monotonic()
    while True:
        closed = timeline.closed  # asked before the last changes are
        pause = INTERVAL
        if timeline.version != version:
            version, changes = timeline.changes(version)
            yield _event(timeline, "change", version, changes)
            spoke = time.monotonic()
            pause = INTERVAL if len(changes) < _MANY else 4 * INTERVAL
        elif time.monotonic() - spoke > _HEARTBEAT:
            yield ": still there\n\n"
            spoke = time.monotonic()
        if closed:
            yield _event(timeline, "closed", version, json.dumps({"now": time.time()}))
            return
        await asyncio.sleep(pause)


def _event(timeline: Timeline, name: str, version: int, data: str) -> str:
    return f"event: {name}\nid: {timeline.epoch}:{version}\ndata: {data}\n\n"


def _known(timeline: Timeline, last_seen: str | None) -> int | None:
    """Return the version that the reader knows; None if it knows none of this timeline."""
    epoch, _, version = (last_seen or "").rpartition(":")
    if epoch != timeline.epoch or not version.isascii() or not version.isdigit():
        return None
    return int(version) if int(version) <= timeline.version else None
