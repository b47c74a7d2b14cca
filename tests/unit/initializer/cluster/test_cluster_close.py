"""Closing a cluster that is ready."""

from __future__ import annotations

from contextlib import AsyncExitStack

import anyio
import anyio.lowlevel
import pytest

from phasebus.bus import Context
from phasebus.initializer.cluster.start import Cluster

pytestmark = pytest.mark.anyio


async def test_cluster_of_a_cancelled_caller_waits_until_its_nodes_have_stopped() -> None:
    stopped, resources = [], AsyncExitStack()

    async def stop_nodes() -> None:
        await anyio.lowlevel.checkpoint()
        stopped.append("nodes")

    resources.push_async_callback(stop_nodes)
    with anyio.CancelScope() as scope:
        async with Cluster([], Context(), resources):
            scope.cancel()
            await anyio.sleep_forever()
    assert stopped == ["nodes"]
