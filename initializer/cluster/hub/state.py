"""The state and the metrics of a cluster, computed from the journals of its nodes.

The decoded events are passed to the same observers that a live bus has, so the metrics of steps are those of a node, summed
over all nodes. Only the states of the nodes, and the series per node, are computed by the hub itself.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from phasebus.bus import PhasebusError, StepEvent
from phasebus.initializer.cluster.hub.node_state import STATES, NodeSeries, NodeState
from phasebus.initializer.node.events import EngineDied
from phasebus.observers import HistoryObserver
from phasebus.telemetry import Metrics, RunIdentity, Timeline, names
from phasebus.telemetry.in_memory import Gauge
from phasebus.telemetry.journal import (
    DecodeError,
    JournalClosed,
    JournalEvent,
    JournalOpened,
    PhaseMoment,
    RecordedStep,
    decode_lines,
)
from phasebus.telemetry.stuck import MAX_STEPS, StuckSteps

logger = logging.getLogger("phasebus.cluster")

MAX_NODES: Final = 20_000
"""Nodes whose state a hub keeps."""

_SILENCE_SECONDS: Final = 10.0
"""A node that was ready counts as lost after this time without a message, in seconds: five keep-alives."""


class TooManyNodesError(PhasebusError):
    """Raised when a message arrives from one node more than a hub can keep."""


class ClusterState:
    """The state and the metrics of a cluster. For use by one thread at a time.

    Args:
        version: The version of phasebus.
        trace_url: The URL of a trace, for the links on the page; by default PHASEBUS_TRACE_URL.
        clock: Returns the time that the silence of nodes is measured with, in seconds.
        max_nodes: Maximum number of nodes; one more is rejected.

    Attributes:
        metrics: The metrics of all nodes.
        timeline: The steps of all nodes.
        nodes: Every process that sends its journal, including the driver, by name.
        cluster: The driver's entry in `nodes`; None until the journal with the step of the cluster has arrived.
        stopping: Whether the driver has begun to end the cluster.
    """

    def __init__(
        self,
        version: str = "",
        trace_url: str | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        max_nodes: int = MAX_NODES,
    ) -> None:
        self._clock = clock
        self._max_nodes = max_nodes
        self.metrics = Metrics(version, of_cluster=True)
        unknown = RunIdentity(run="", trace="", node="")  # until the first journal arrives
        self.timeline = Timeline(unknown, trace_url or os.environ.get("PHASEBUS_TRACE_URL"))
        self._series = NodeSeries(self.metrics)
        self._states: Gauge = self.metrics.family(names.CLUSTER_NODES)
        self.nodes: dict[str, NodeState] = {}
        self.cluster: NodeState | None = None
        self.stopping = False
        self._expected_nodes = 0
        self._began_ns: int | None = None
        self._warned = False
        self._history = HistoryObserver(None, self.timeline, self.metrics)
        self._stuck: dict[str, StuckSteps] = {}  # by node
        for state in STATES:
            self._states.labels(state)

    def node(self, name: str) -> NodeState:
        """Return the state of the node `name`; a new node is added.

        Raises:
            TooManyNodesError: The hub keeps its maximum number of nodes.
        """
        found = self.nodes.get(name)
        if found is None:
            if len(self.nodes) >= self._max_nodes:
                raise TooManyNodesError(f"the hub keeps {self._max_nodes} nodes, and {name!r} is one more")
            found = self.nodes[name] = NodeState(name, self._series, self.metrics, self.timeline)
        return found

    def receive(self, name: str, offset: int, lines: bytes, *, dropped: int = 0, target: str | None = None) -> int:
        """Apply whole lines of a node's journal; return the number of bytes of the journal received so far.

        A line that cannot be decoded is skipped and counted.

        Args:
            name: The name of the node.
            offset: The offset of the lines in its journal, in bytes. If it is not the expected one, they are ignored.
            lines: The lines.
            dropped: Total number of events that the buffer of its journal has dropped.
            target: The address of its own /metrics.
        """
        node = self.node(name)
        node.received(self._clock(), time.time(), dropped, target)
        if offset != node.offset:
            return node.offset
        events, errors = decode_lines(lines)
        for event in events:
            self._apply(node, event)
        node.count_lines(lines.count(b"\n"), len(errors))
        node.offset += len(lines)
        if errors:
            self._warn(name, errors)
        return node.offset

    def _apply(self, node: NodeState, event: JournalEvent) -> None:
        if isinstance(event, StepEvent):
            attributes = event.attributes
            closed_by_driver = "lost" in attributes or "retold" in attributes
            owner = self.node(str(attributes.get("node", node.name))) if closed_by_driver else node
            owner.apply(event)
            self._history.observe_node(event, "" if event.kind == "cluster" or owner is self.cluster else owner.name)
            if event.kind == "cluster":
                self.cluster = node
                expected = attributes.get("nodes", 0)
                self._expected_nodes = expected if isinstance(expected, int) else 0
        elif isinstance(event, StuckSteps):
            self._stuck[node.name] = event
            node.record_stuck(event)
            self.timeline.set_stuck([step for each in self._stuck.values() for step in each.plain()][:MAX_STEPS])
        elif isinstance(event, JournalOpened):
            self._opened(node, event)
        elif isinstance(event, JournalClosed):
            node.closed(ends=node is not self.cluster)
        elif isinstance(event, PhaseMoment) and event.event == EngineDied.__name__:
            node.set_status("failed", str(event.fields.get("error", "the engine has died")))

    def _opened(self, node: NodeState, event: JournalOpened) -> None:
        node.opened(event)
        if self._began_ns is None or event.time_ns < self._began_ns:
            self._began_ns = event.time_ns
            self.metrics.start_time.set(event.time_ns / 1e9)
            self.timeline.identity = RunIdentity(run=event.run, trace=event.trace, node=event.node)

    def _warn(self, name: str, errors: Sequence[DecodeError]) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "cannot decode %d lines of the journal of %r (%s); they are skipped, and later ones only counted in %s",
                len(errors),
                name,
                errors[0],
                names.NODE_REJECTED.name,
            )

    def running_steps(self, name: str) -> Sequence[RecordedStep]:
        """Return the steps of a node that have begun and not ended."""
        return self.nodes[name].running_steps() if name in self.nodes else ()

    def members(self) -> Sequence[NodeState]:
        """Return the nodes in the order of their names; the driver is not one."""
        return [self.nodes[name] for name in sorted(self.nodes) if self.nodes[name] is not self.cluster]

    @property
    def status(self) -> str:
        """The state of the cluster: starting, ready or failed; degraded if a node of a ready cluster is not ready; stopping."""
        if self.cluster is None:
            return "starting"
        if self.stopping and self.cluster.status == "ready":
            return "stopping"
        ready = sum(node.status == "ready" for node in self.members())
        return "degraded" if self.cluster.status == "ready" and ready < self._expected_nodes else self.cluster.status

    def refresh(self) -> None:
        """Mark nodes without recent messages as lost, and update the metrics that depend on the state."""
        silent_since = self._clock() - _SILENCE_SECONDS
        members = self.members()
        for node in members:
            if node.status == "ready" and node.seen < silent_since:
                node.silent = True
                node.set_status("lost", f"no message for {_SILENCE_SECONDS:g} s")
        for node in self.nodes.values():
            node.export()
        self.metrics.ready.set(self.status == "ready")
        for state in STATES:
            self._states.labels(state).set(sum(node.status == state for node in members))

    def describe(self) -> dict[str, Any]:
        """Return the state of the cluster and of each of its nodes, as data for JSON."""
        whole = self.cluster
        return {
            "status": self.status,
            "phase": None if whole is None else whole.phase,
            **({"error": whole.error} if whole is not None and whole.error else {}),
            "remaining": self.timeline.remaining,
            "nodes": [node.describe() for node in self.members()],
        }
