"""What the hub knows: where every node stands, out of the lines of the nodes' journals.

Metrics of steps are those of a single node, summed over all of them; only a handful of series are per node.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from phasebus.initializer.node.events import EngineDied
from phasebus.telemetry import Metrics, RunIdentity, Timeline, names
from phasebus.telemetry.in_memory import Counter, Gauge, Histogram
from phasebus.telemetry.journal import FOOTER, HEADER
from phasebus.telemetry.metrics import UNKNOWN

_SILENT_SECONDS = 10.0
"""A node that was ready is taken for lost when nothing has been heard of it for so long, in seconds: five signs of life."""

_STATES = ("starting", "ready", "failed", "lost", "ended")


@dataclass(slots=True)
class NodeBoard:
    """Where one node stands.

    Attributes:
        name: Its name.
        ready: Its gauges and counters; likewise `seen`, `events`, `dropped`. Gauges are set when the board is looked at.
        offset: How many bytes of its journal have been taken.
        status: One of starting, ready, failed, lost, ended.
        phase: The phase that began last and runs.
        target: Where its own metrics are, ``host:port``; None where they are not served.
        header: The first line of its journal.
        error: What it failed with.
        heard: When it was last heard of, by the board's clock, in seconds.
        heard_at: The same in seconds since the epoch.
        shown_phase: The phase that the metrics show.
        silent: Whether it is taken for lost because nothing is heard of it.
    """

    name: str
    ready: Gauge
    seen: Gauge
    events: Counter
    dropped: Counter
    offset: int = 0
    status: str = "starting"
    phase: str | None = None
    target: str | None = None
    header: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    told_dropped: int = 0
    heard: float = 0.0
    heard_at: float = 0.0
    shown_phase: str | None = None
    silent: bool = False

    def settle(self, status: str, error: str | None) -> None:
        """Have it stand like that."""
        self.status, self.error = status, error


class Board:
    """The state and the metrics of a cluster; to be used by one thread at a time.

    Args:
        version: The version of phasebus.
        trace_url: Where the page links to for a trace; by default PHASEBUS_TRACE_URL.
        clock: Tells the time by which nodes fall silent, in seconds.
    """

    def __init__(
        self, version: str = "", trace_url: str | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self.metrics = Metrics(version)
        unknown = RunIdentity(run="", trace="", node="")  # until the first journal says
        self.timeline = Timeline(unknown, trace_url or os.environ.get("PHASEBUS_TRACE_URL"))
        registry = self.metrics.registry
        self._states = Gauge(*names.CLUSTER_NODES, registry=registry)
        self._ready = Gauge(*names.NODE_READY, registry=registry)
        self._phase = Gauge(*names.NODE_PHASE, registry=registry)
        self._seen = Gauge(*names.NODE_SEEN, registry=registry)
        self._events = Counter(*names.NODE_EVENTS, registry=registry)
        self._dropped = Counter(*names.NODE_DROPPED, registry=registry)
        self.nodes: dict[str, NodeBoard] = {}
        self.cluster: NodeBoard | None = None
        self._nodes_wanted = 0
        self._open: dict[str, tuple[str, Gauge, dict[str, Any]]] = {}
        self._gauges: dict[tuple[str, ...], Gauge] = {}
        self._ends: dict[tuple[str, ...], Histogram] = {}
        self._counts: dict[tuple[str, ...], Counter] = {}
        for state in _STATES:
            self._states.labels(state)

    def node(self, name: str) -> NodeBoard:
        """Return where the node `name` stands, from now on one of the cluster's."""
        found = self.nodes.get(name)
        if found is None:
            found = self.nodes[name] = NodeBoard(
                name,
                self._ready.labels(name),
                self._seen.labels(name),
                self._events.labels(name),
                self._dropped.labels(name),
            )
        return found

    def take(self, name: str, offset: int, lines: bytes, *, dropped: int = 0, target: str | None = None) -> int:
        """Take whole lines of a node's journal; return how many bytes of it have been taken by now.

        Args:
            name: The node.
            offset: Where in its journal they begin. Lines from elsewhere than where the last ones ended are not taken.
            lines: The lines.
            dropped: How many events its journal has had no room for.
            target: Where its own metrics are.
        """
        node = self.node(name)
        node.heard_at = time.time()
        node.heard = self._clock()
        if node.silent:
            node.silent = False
            node.settle("ready", None)
        node.target = target
        if dropped > node.told_dropped:
            node.dropped.inc(dropped - node.told_dropped)
            node.told_dropped = dropped
        if offset != node.offset:
            return node.offset
        taken = json.loads(b"[%b]" % lines.rstrip(b"\n").replace(b"\n", b","))  # cheaper than line by line
        for line in taken:
            self._take_line(node, line)
        node.events.inc(len(taken))
        node.offset += len(lines)
        return node.offset

    def _take_line(self, node: NodeBoard, line: dict[str, Any]) -> None:
        self.timeline.take(line)
        if "span" not in line:
            if line["event"] == HEADER:
                node.header = line
                self.timeline.identity = RunIdentity(run=line["run"], trace=line["trace"], node=line["node"])
            elif line["event"] == EngineDied.__name__:
                node.settle("failed", line["error"])
            elif line["event"] == FOOTER and node.status == "ready" and node is not self.cluster:
                node.settle("ended", None)
        elif "outcome" in line:
            self._end(node, line)
        elif "done" not in line:
            self._begin(node, line)

    def _begin(self, node: NodeBoard, line: dict[str, Any]) -> None:
        span = line["span"]
        if span in self._open or "retold" in line["attributes"]:
            return
        kind, step = line["kind"], line["name"]
        gauge = self._gauge(kind, step, line["attributes"])
        gauge.inc()
        self._open[span] = (node.name, gauge, line)
        if kind == "phase":
            node.phase = step
        elif kind == "cluster":
            self.cluster = node

    def _end(self, node: NodeBoard, line: dict[str, Any]) -> None:
        opened = self._open.pop(line["span"], None)
        if opened is None:
            return
        owner, gauge, _ = opened
        kind, step = line["kind"], line["name"]
        gauge.dec()
        outcome, attributes = line["outcome"], line["attributes"]
        exemplar = {"trace_id": line["trace"], "span_id": line["span"]} if kind in ("node", "phase") else None
        self._histogram(kind, step, attributes, outcome).observe(line["seconds"], exemplar)
        if kind in names.KINDS:
            for count in names.KINDS[kind].counts:
                self._count(count, attributes, outcome)
        of = node if owner == node.name else self.nodes[owner]  # the driver closes what a lost node had begun
        if kind == "phase" and of.phase == step:
            of.phase = None
        elif kind in ("node", "cluster"):
            status = {"finished": "ready", "died": "lost"}.get(outcome, "failed")
            if kind == "cluster":
                self._nodes_wanted = attributes.get("nodes", 0)
            of.settle(status, line.get("error", {}).get("message"))

    def open_steps(self, name: str) -> list[dict[str, Any]]:
        """Return, of every step of a node that has begun and not ended, the journal's line of its beginning."""
        return [line for owner, _, line in self._open.values() if owner == name]

    @property
    def status(self) -> str:
        """Where the cluster stands: starting, ready, failed; degraded if it was ready and some of its nodes no longer are."""
        if self.cluster is None:
            return "starting"
        ready = sum(node.status == "ready" for node in self.nodes.values() if node is not self.cluster)
        return "degraded" if self.cluster.status == "ready" and ready < self._nodes_wanted else self.cluster.status

    def look(self) -> None:
        """Bring up to date what changes with time: nodes that have fallen silent, and how nodes stand in the metrics."""
        silent_since = self._clock() - _SILENT_SECONDS
        for node in self.nodes.values():
            if node.status == "ready" and node is not self.cluster and node.heard < silent_since:
                node.silent = True
                node.settle("lost", f"nothing has been heard of it for {_SILENT_SECONDS:g} s")
            self._show(node)
        self.metrics.ready.set(self.status == "ready")
        for state in _STATES:
            count = sum(node.status == state for node in self.nodes.values() if node is not self.cluster)
            self._states.labels(state).set(count)

    def _show(self, node: NodeBoard) -> None:
        node.ready.set(node.status == "ready")
        node.seen.set(node.heard_at)
        if node.phase != node.shown_phase:
            if node.shown_phase is not None:
                self._phase.remove(node.name, node.shown_phase)
            if node.phase is not None:
                self._phase.labels(node.name, node.phase).set(1)
            node.shown_phase = node.phase

    def _gauge(self, kind: str, step: str, attributes: Mapping[str, Any]) -> Gauge:
        duration = names.KINDS[kind].duration if kind in names.KINDS else names.OTHER_KIND
        key = (kind, *_values(duration, kind, step, attributes))
        if key not in self._gauges:
            _, gauge = self.metrics.duration(duration)
            self._gauges[key] = gauge.labels(*key[1:]) if len(key) > 1 else gauge
        return self._gauges[key]

    def _histogram(self, kind: str, step: str, attributes: Mapping[str, Any], outcome: str) -> Histogram:
        duration = names.KINDS[kind].duration if kind in names.KINDS else names.OTHER_KIND
        key = (kind, *_values(duration, kind, step, attributes), outcome)
        if key not in self._ends:
            histogram, _ = self.metrics.duration(duration)
            self._ends[key] = histogram.labels(*key[1:])
        return self._ends[key]

    def _count(self, count: names.Count, attributes: Mapping[str, Any], outcome: str) -> None:
        amount = 1 if count.attribute is None else attributes.get(count.attribute, 0)
        if isinstance(amount, int | float):
            known = {"outcome": outcome, **attributes}
            key = (count.name, *(str(known.get(label, UNKNOWN)) for label in count.labels))
            if key not in self._counts:
                self._counts[key] = self.metrics.counters[count.name].labels(*key[1:])
            self._counts[key].inc(amount)


def _values(duration: names.Duration, kind: str, step: str, attributes: Mapping[str, Any]) -> tuple[str, ...]:
    values = [kind if label == "kind" else str(attributes.get(label, UNKNOWN)) for label in duration.labels]
    return tuple(values) if duration.name_label is None else (*values, step)
