"""The downloads that the page offers: the run as a trace for Perfetto, and the journal."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from phasebus.clock import now_ns
from phasebus.printable import printable_value
from phasebus.telemetry.files import open_regular
from phasebus.telemetry.own_threads import OWN_THREADS
from phasebus.telemetry.timeline import Timeline

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

_UNCACHED = {"Cache-Control": "no-store"}
_PART_BYTES: Final = 65_536


def export_routes(timeline: Timeline) -> list[Route]:
    """Return the routes /perfetto.json and /journal.jsonl; the second one answers 404 where there is no journal."""
    import anyio
    from starlette.responses import PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Route

    alone = anyio.CapacityLimiter(1)  # encoding all steps takes a second of a processor

    async def trace(_: Request) -> Response:
        body = await anyio.to_thread.run_sync(_counted_perfetto, timeline, limiter=alone)
        return Response(body, media_type="application/json", headers=_attachment(timeline, "perfetto.json"))

    async def journal(_: Request) -> Response:
        path = timeline.journal
        if path is None or not await anyio.to_thread.run_sync(_is_own_file, path, limiter=alone):
            return PlainTextResponse("this process has no journal; see its warnings\n", 404, _UNCACHED)
        headers = _attachment(timeline, "jsonl")
        return StreamingResponse(_content_of(path), media_type="application/x-ndjson", headers=headers)

    return [Route("/perfetto.json", trace), Route("/journal.jsonl", journal)]


def _opened(path: Path) -> BinaryIO:
    """Open a file of this user; others may have put something else in its place."""
    return os.fdopen(open_regular(path, os.O_RDONLY, own=True), "rb")


def _is_own_file(path: Path) -> bool:
    try:
        _opened(path).close()
    except OSError:
        return False
    return True


async def _content_of(path: Path) -> AsyncIterator[bytes]:
    import anyio

    with await anyio.to_thread.run_sync(_opened, path) as file:
        while part := await anyio.to_thread.run_sync(file.read, _PART_BYTES):
            yield part


def _attachment(timeline: Timeline, ending: str) -> dict[str, str]:
    name = "".join(each for each in timeline.identity.run if each.isascii() and (each.isalnum() or each == "-"))
    return {"Content-Disposition": f'attachment; filename="{name or "run"}.{ending}"', **_UNCACHED}


def _counted_perfetto(timeline: Timeline) -> bytes:
    with OWN_THREADS.counted():
        return _perfetto(timeline)


def _perfetto(timeline: Timeline) -> bytes:
    from phasebus.telemetry.analysis import perfetto
    from phasebus.telemetry.journal import RecordedStep, Run

    state, now = timeline.state(), now_ns()
    steps = sorted(
        (
            RecordedStep(
                id=step["id"],
                parent=step.get("parent"),
                node=step["node"],
                kind=step["kind"],
                name=step["name"],
                start_ns=int(step["start"] * 1e9),
                end_ns=int(step["end"] * 1e9) if "end" in step else None,
                outcome=step["outcome"],
                error=step.get("error"),
                attributes=step.get("attributes", {}),
            )
            for step in state["steps"]
        ),
        key=lambda step: step.start_ns,
    )
    run = Run(
        path=timeline.journal or Path(),
        run=state["run"],
        node=state["node"],
        trace=state["trace"],
        phasebus=state["phasebus"],
        start_ns=steps[0].start_ns if steps else now,
        end_ns=now,
        state="closed" if timeline.closed else "running",
        steps=tuple(steps),
        moments=(),
    )
    return json.dumps(perfetto(run), ensure_ascii=False, default=printable_value).encode("utf-8", "backslashreplace")
