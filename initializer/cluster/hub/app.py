"""What the hub answers over HTTP: the cluster's metrics and state, and where the nodes' own metrics are."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any

from phasebus.initializer.cluster.hub.state import Board
from phasebus.telemetry.service import page_routes

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response


def build_hub_app(board: Board, lock: Lock) -> Starlette:
    """Return the application that serves `board`: the page, /metrics, /livez, /readyz, /state and /sd.

    Args:
        board: What is known.
        lock: Held while it is read: somebody else writes it.
    """
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route

    async def metrics(request: Request) -> Response:
        with lock:
            board.look()
            body, content_type = board.metrics.render(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type})

    async def livez(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        with lock:
            board.look()
            described = describe(board)
        return JSONResponse(described, status_code=200 if described["status"] == "ready" else 503)

    async def state(_: Request) -> Response:
        with lock:
            board.look()
            return JSONResponse(describe(board))

    async def service_discovery(_: Request) -> Response:
        with lock:
            board.look()
            return JSONResponse(
                [
                    {"targets": [node.target], "labels": {"node": node.name}}
                    for node in sorted(board.nodes.values(), key=lambda node: node.name)
                    if node.target is not None and node.status in ("starting", "ready")
                ]
            )

    return Starlette(
        routes=[
            *page_routes(board.timeline),
            Route("/metrics", metrics),
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/state", state),
            Route("/sd", service_discovery),
        ]
    )


def describe(board: Board) -> dict[str, Any]:
    """Return where the cluster and each of its nodes stand, as JSON will say it."""
    whole = board.cluster
    return {
        "status": board.status,
        "phase": None if whole is None else whole.phase,
        **({"error": whole.error} if whole is not None and whole.error else {}),
        "nodes": [
            {
                "name": node.name,
                "status": node.status,
                "phase": node.phase,
                "host": node.header.get("host"),
                "metrics": node.target,
                **({"error": node.error} if node.error else {}),
            }
            for node in sorted(board.nodes.values(), key=lambda node: node.name)
            if node is not whole
        ],
    }
