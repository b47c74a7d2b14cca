"""The actor that runs a node in a process of its own."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from anyio.from_thread import start_blocking_portal

from phasebus.clock import now_ns
from phasebus.initializer.cluster.node_runtime import NodeReport, NodeRuntime
from phasebus.initializer.engines.protocol import EngineError
from phasebus.initializer.engines.registry import find_launcher
from phasebus.initializer.node.config import LLMConfig, ServiceConfig
from phasebus.initializer.ray.raylet import end_with_the_raylet
from phasebus.telemetry import RunIdentity
from phasebus.telemetry.journal import journal_of


class NodeActor:
    """A node. `phasebus.initializer.ray.actors` makes it a threaded actor.

    It has no asynchronous methods: Ray would run all methods in one event loop, and the node could not answer pings while it
    starts. Its bus runs in a thread of its own.

    What the start of a node imports is imported when the actor is created, beside the creation of the other actors.

    Args:
        identity: The identity of the node, with its trace and its parent step.
        environment: Variables of the driver. They do not replace variables of this process.
        service: The HTTP service of the node.
        engine: The engine that the node starts.
        nodes: The number of nodes that its engine has workers on.
    """

    def __init__(
        self, identity: RunIdentity, environment: Mapping[str, str], service: ServiceConfig, engine: str, nodes: int
    ) -> None:
        for name, value in environment.items():
            os.environ.setdefault(name, value)
        if identity.parent is not None:
            os.environ["TRACEPARENT"] = identity.traceparent(identity.parent)
        self._identity = identity
        self._portal_manager = start_blocking_portal()
        self._portal = self._portal_manager.__enter__()
        self._runtime = NodeRuntime(identity, service, nodes)
        self._running: Future[None] | None = None
        with suppress(EngineError):  # the start of the node raises it
            find_launcher(engine)
        end_with_the_raylet()

    def where(self) -> tuple[str, int]:
        """Return the name of the machine and the id of the process."""
        return platform.node(), os.getpid()

    def journal_and_clock(self) -> tuple[str, int]:
        """Return the path of the node's journal, which `start` creates, and its clock in nanoseconds since the epoch."""
        return str(journal_of(self._identity)), now_ns()

    def ping(self) -> None:
        """Liveness check; returns immediately."""

    def start(self, config: LLMConfig, given: Mapping[str, Any], others: Sequence[Any], hub: Any) -> NodeReport:
        """Start the node and return its report when it is ready. The node runs until `stop`.

        Args:
            config: Its configuration.
            given: Initial values of the context, in place of the configuration's.
            others: References to the reports of nodes that must be ready before the engine starts.
            hub: Ray's handle of the hub; None without one.
        """
        self._running = self._portal.start_task_soon(self._runtime.run, config, given, others, hub)
        return self._runtime.ready.result()

    def generate(self, prompt: str, sampling: Mapping[str, Any]) -> str:
        """Return the text that the model generates from `prompt`."""
        return str(self._portal.call(self._runtime.generate, prompt, sampling))

    def stop(self) -> None:
        """End the node, or cancel its start, and wait until its telemetry has been flushed."""
        if self._running is not None:
            self._running.cancel()
            self._runtime.ended.wait()
