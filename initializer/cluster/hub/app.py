"""The HTTP service of the hub: the cluster's page, metrics and state, and the addresses of the nodes' own metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any

from phasebus.initializer.cluster.hub.node_state import NodeState
from phasebus.initializer.cluster.hub.state import ClusterState
from phasebus.telemetry.service import page_routes, visible_status

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response


def build_hub_app(cluster: ClusterState, lock: Lock) -> Starlette:
    """Return the application that serves `cluster`: the page, /metrics, /livez, /readyz, /state and /sd.

    Args:
        cluster: The state that it serves.
        lock: Held while the state is read; another thread writes it.
    """
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route

    async def metrics(request: Request) -> Response:
        with lock:
            cluster.refresh()
            body, content_type = cluster.metrics.render(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type})

    async def livez(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        with lock:
            cluster.refresh()
            described = cluster.describe()
        return JSONResponse(
            visible_status(request.scope, described), status_code=200 if described["status"] == "ready" else 503
        )

    async def state(_: Request) -> Response:
        with lock:
            cluster.refresh()
            return JSONResponse(cluster.describe())

    async def service_discovery(_: Request) -> Response:
        with lock:
            cluster.refresh()
            return JSONResponse(
                [
                    target
                    for node in cluster.members()
                    if node.status in ("starting", "ready")
                    for target in _targets(node)
                ]
            )

    return Starlette(
        routes=[
            *page_routes(cluster.timeline),
            Route("/metrics", metrics),
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/state", state),
            Route("/sd", service_discovery),
        ]
    )


def _targets(node: NodeState) -> Iterator[Mapping[str, Any]]:
    """Yield the target groups of a node: its own /metrics, and those of its engine's server in a job named as the engine."""
    if node.target is not None:
        yield {"targets": [node.target], "labels": {"node": node.name}}
    if node.server is not None:
        scheme, _, address = node.server.url.partition("://")
        yield {"targets": [address], "labels": {"node": node.name, "job": node.server.engine, "__scheme__": scheme}}
