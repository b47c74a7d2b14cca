"""What the service answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phasebus.telemetry.metrics import Metrics
from phasebus.telemetry.service.stream import page_routes
from phasebus.telemetry.status import Status
from phasebus.telemetry.timeline import Timeline

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response


def build_app(metrics: Metrics, status: Status, timeline: Timeline) -> Starlette:
    """Return the application that serves /metrics, the probes /livez and /readyz, and the page.

    The page is at /; it hears of the `timeline` by server-sent events from /events, and /timeline is the same at once. The probes answer as Kubernetes' own API server does: 200 where the answer is yes, 503 where it is not (yet).
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
