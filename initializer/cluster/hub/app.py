"""The HTTP service of the hub: the cluster's page, metrics and state, and the addresses of the nodes' own metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from phasebus.initializer.cluster.hub.node_state import NodeState
from phasebus.initializer.cluster.hub.state import ClusterState
from phasebus.telemetry.service import page_routes, visible_status

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

_JSON: Final = "application/json"


def build_hub_app(cluster: ClusterState, lock: Lock) -> Starlette:
    """Return the application that serves `cluster`: the page, /metrics, /livez, /readyz, /state and /sd.

    Args:
        cluster: The state that it serves.
        lock: Held while the state is read; another thread writes it.
    """
    import anyio
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route

    alone = anyio.CapacityLimiter(1)  # a scrape of a large cluster takes a second of a processor

    async def metrics(request: Request) -> Response:
        accept = request.headers.get("accept", "")
        body, content_type = await anyio.to_thread.run_sync(_metrics, cluster, lock, accept, limiter=alone)
        return Response(body, headers={"Content-Type": content_type})

    async def livez(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        body, is_ready = await anyio.to_thread.run_sync(_readiness, cluster, lock, request.scope)
        return Response(body, media_type=_JSON, status_code=200 if is_ready else 503)

    async def state(_: Request) -> Response:
        return Response(await anyio.to_thread.run_sync(_state, cluster, lock, limiter=alone), media_type=_JSON)

    async def service_discovery(_: Request) -> Response:
        return Response(await anyio.to_thread.run_sync(_all_targets, cluster, lock, limiter=alone), media_type=_JSON)

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


# These run in a thread, so that the receiver's lock and a large cluster delay no other request, such as a probe.


def _metrics(cluster: ClusterState, lock: Lock, accept: str) -> tuple[bytes, str]:
    with lock:
        cluster.refresh()
    return cluster.metrics.render(accept)


def _readiness(cluster: ClusterState, lock: Lock, scope: Mapping[str, Any]) -> tuple[str, bool]:
    with lock:
        cluster.refresh()
        described = cluster.describe()
    return json.dumps(visible_status(scope, described)), described["status"] == "ready"


def _state(cluster: ClusterState, lock: Lock) -> str:
    with lock:
        cluster.refresh()
        described = cluster.describe()
    return json.dumps(described)


def _all_targets(cluster: ClusterState, lock: Lock) -> str:
    with lock:
        cluster.refresh()
        members = [node for node in cluster.members() if node.status in ("starting", "ready")]
        return json.dumps([target for node in members for target in _targets(node)])


def _targets(node: NodeState) -> Iterator[Mapping[str, Any]]:
    """Yield the target groups of a node: its own /metrics, and those of its engine's server in a job named as the engine."""
    if node.target is not None:
        yield {"targets": [node.target], "labels": {"node": node.name}}
    if node.server is not None:
        scheme, _, address = node.server.url.partition("://")
        yield {"targets": [address], "labels": {"node": node.name, "job": node.server.engine, "__scheme__": scheme}}
