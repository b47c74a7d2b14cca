"""Closing a node, or a cluster, that is ready: a signal cancels the program that closes it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack

import anyio
import anyio.lowlevel
import pytest

from phasebus.bus import Context
from phasebus.initializer.cluster.start import Cluster
from phasebus.initializer.node.node import Node

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "started",
    [lambda resources: Node(None, Context(), resources), lambda resources: Cluster([], Context(), resources)],
    ids=["node", "cluster"],
)
async def test_cancelled_caller_waits_until_all_resources_are_released(
    started: Callable[[AsyncExitStack], Node | Cluster],
) -> None:
    released, resources = [], AsyncExitStack()

    async def release() -> None:
        await anyio.lowlevel.checkpoint()
        released.append("engine")

    resources.push_async_callback(release)
    with anyio.CancelScope() as scope:
        async with started(resources):
            scope.cancel()
            await anyio.sleep_forever()
    assert released == ["engine"]
