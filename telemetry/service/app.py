"""What the service answers."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from phasebus.telemetry.metrics import Metrics
from phasebus.telemetry.status import Status


def build_app(metrics: Metrics, status: Status) -> Starlette:
    """Return the application that serves `metrics` and `status`: /metrics, /livez and /readyz.

    The probes answer as Kubernetes' own API server does: 200 where the answer is yes, 503 where it is not (yet).
    """

    async def render_metrics(request: Request) -> Response:
        body, content_type = metrics.render(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type})

    async def livez(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        return JSONResponse(status.describe(), status_code=200 if status.ready else 503)

    return Starlette(
        routes=[
            Route("/metrics", render_metrics),
            Route("/livez", livez),
            Route("/readyz", readyz),
        ]
    )
