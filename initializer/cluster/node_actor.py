"""What runs on every node: an actor that keeps a node and answers for it."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from anyio.from_thread import start_blocking_portal

from phasebus.initializer.cluster.node_runtime import NodeLife, Report
from phasebus.initializer.node.config import LLMConfig
from phasebus.initializer.ray.raylet import end_with_the_raylet
from phasebus.telemetry import RunIdentity
from phasebus.telemetry.journal import journal_of


class NodeActor:
    """A node; made an actor, with threads, by `phasebus.initializer.ray.actors`.

    It has no asynchronous methods: with one of them, Ray would run all of them in one event loop, and a node that starts
    would answer nothing meanwhile. Its bus runs in a thread of its own.

    Args:
        identity: Who it is, and below which step of which trace it starts.
        environment: Variables of the driver that hold here as well, where they are not set already.
    """

    def __init__(self, identity: RunIdentity, environment: Mapping[str, str]) -> None:
        for name, value in environment.items():
            os.environ.setdefault(name, value)
        if identity.parent is not None:
            os.environ["TRACEPARENT"] = identity.traceparent(identity.parent)
        self._identity = identity
        self._portal_manager = start_blocking_portal()
        self._portal = self._portal_manager.__enter__()
        self._life = NodeLife(identity)
        self._living: Future[None] | None = None
        end_with_the_raylet()

    def where(self) -> tuple[str, int]:
        """Return the name of the machine and the id of the process."""
        return platform.node(), os.getpid()

    def journal(self) -> str:
        """Return where its journal is going to be."""
        return str(journal_of(self._identity))

    def ping(self) -> None:
        """Return, which is what is asked for."""

    def start(self, config: LLMConfig, given: Mapping[str, Any], others: Sequence[Any], hub: Any) -> Report:
        """Start the node and return once it is ready; it lives until it is told to stop.

        Args:
            config: What is started.
            given: What the context holds at first over the configuration's values.
            others: References to the answers of nodes that have to be ready before the engine starts.
            hub: Ray's handle of the hub; None without one.
        """
        self._living = self._portal.start_task_soon(self._life.live, config, given, others, hub)
        return self._life.ready.result()

    def generate(self, prompt: str, sampling: Mapping[str, Any]) -> str:
        """Return what the model makes of `prompt`."""
        return str(self._portal.call(self._life.generate, prompt, sampling))

    def stop(self) -> None:
        """End the node in order, or its start; what was seen of it has been handed on when this returns."""
        if self._living is not None:
            self._living.cancel()
            self._life.ended.wait()
