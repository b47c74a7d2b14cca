"""The state of one node, computed from the events of its journal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from phasebus.bus import StepEvent, StepFailed, StepFinished, StepStarted
from phasebus.initializer.engines.protocol import ENGINE_INIT
from phasebus.initializer.pipeline.wiring import journal_observers
from phasebus.telemetry import Metrics, RunningSteps, Timeline, names
from phasebus.telemetry.in_memory import Counter, Gauge
from phasebus.telemetry.journal import JournalOpened, RecordedStep
from phasebus.telemetry.redaction import redact_name
from phasebus.telemetry.stuck import StuckSteps

_URL: Final = re.compile(r"https?://(?:[\w.-]{1,255}|\[[0-9A-Fa-f:.%]{2,60}\]):[0-9]{1,5}", re.ASCII)

STATES: Final = ("starting", "ready", "failed", "lost", "ended")


@dataclass(frozen=True, slots=True)
class EngineServer:
    """The server of a node's engine.

    Attributes:
        engine: The name of the engine.
        url: The URL of the server, ``http://host:port``.
    """

    engine: str
    url: str

    @classmethod
    def of(cls, event: StepEvent) -> Self | None:
        """Return the server that the end of an engine's step names; None without a valid one."""
        url = event.attributes.get("url")
        return cls(event.name, url) if isinstance(url, str) and _URL.fullmatch(url) else None


class NodeSeries:
    """The metrics that have a series for each node.

    Args:
        metrics: The metrics that they are added to.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.ready: Gauge = metrics.family(names.NODE_READY)
        self.phase: Gauge = metrics.family(names.NODE_PHASE)
        self.startup: Gauge = metrics.family(names.NODE_STARTUP)
        self.seen: Gauge = metrics.family(names.NODE_SEEN)
        self.events: Counter = metrics.family(names.NODE_EVENTS)
        self.dropped: Counter = metrics.family(names.NODE_DROPPED)
        self.rejected: Counter = metrics.family(names.NODE_REJECTED)


class NodeState:
    """The state of one node.

    Args:
        name: The node's name.
        series: The metrics of single nodes.
        metrics: The metrics of the whole cluster, to which its steps are added.
        timeline: The timeline of the whole cluster, to which its steps are added.

    Attributes:
        name: Its name.
        offset: Number of bytes of its journal that have been received.
        status: One of `STATES`.
        error: The reason for a status that is not good; None without one.
        target: The address of its own /metrics, ``host:port``; None without one.
        server: The server of its engine; None without one.
        host: The name of its machine; None before its journal's first line has arrived.
        seen: The time of its last message, by the hub's clock, in seconds.
        silent: Whether it counts as lost because its messages stopped.
    """

    def __init__(self, name: str, series: NodeSeries, metrics: Metrics, timeline: Timeline) -> None:
        self.name = name
        self.offset = 0
        self.status = "starting"
        self.error: str | None = None
        self.target: str | None = None
        self.server: EngineServer | None = None
        self.host: str | None = None
        self.seen = 0.0
        self.silent = False
        self._metrics = metrics
        self._timeline = timeline
        self._ready = series.ready.labels(name)
        self._seen = series.seen.labels(name)
        self._events = series.events.labels(name)
        self._dropped = series.dropped.labels(name)
        self._phase = series.phase
        self._startup = series.startup
        self._rejected = series.rejected
        self._dropped_so_far = 0
        self._exported_phase: str | None = None
        self._running = RunningSteps()
        self._trace: str | None = None
        self._observe = journal_observers(metrics, timeline, name, None)

    @property
    def phase(self) -> str | None:
        """The phase that has been running longest; None between phases."""
        return self._running.phase

    def set_status(self, status: str, error: str | None = None) -> None:
        """Set the status, and the reason if it is not good."""
        self.status, self.error = status, error

    def received(self, seconds: float, epoch_seconds: float, dropped: int, target: str | None) -> None:
        """Record a message of the node.

        Args:
            seconds: Its time of arrival, by the hub's clock.
            epoch_seconds: The same time in seconds since the epoch.
            dropped: Total number of events that the buffer of the node's journal has dropped.
            target: The address of the node's own /metrics.
        """
        self.seen, self.target = seconds, target
        self._seen.set(epoch_seconds)
        if self.silent:
            self.silent = False
            self.set_status("ready")
        if dropped > self._dropped_so_far:
            self._dropped.inc(dropped - self._dropped_so_far)
            self._dropped_so_far = dropped

    def count_lines(self, received: int, rejected: int) -> None:
        """Count the lines of a message, and the lines that could not be decoded."""
        self._events.inc(received)
        if rejected:
            self._rejected.labels(self.name).inc(rejected)

    def opened(self, event: JournalOpened) -> None:
        """Apply the first event of its journal."""
        self.host = event.host
        if event.trace == self._trace:
            return  # another bus of the same process
        self._trace = event.trace
        self._observe[0].close()
        self._observe = journal_observers(self._metrics, self._timeline, self.name, event.trace)

    def record_stuck(self, stuck: StuckSteps) -> None:
        """Record which of its steps are stuck."""
        self._observe[0].record_stuck(stuck)

    def closed(self, *, ends: bool) -> None:
        """Apply the last event of its journal: its bus has closed. `ends` is whether the node ends with its bus."""
        self._observe[0].close()
        self._running.clear()
        if ends and self.status == "ready":
            self.set_status("ended")

    def apply(self, event: StepEvent) -> None:
        """Apply an event of one of its steps, from its own journal or, for a lost node, from the driver's.

        The driver repeats events that the hub may lack: those of ended steps (``retold``), and the starts of the steps that
        it closes (``lost``). Metrics count each step once.
        """
        series, page = self._observe
        if isinstance(event, StepStarted):
            repeated = "retold" in event.attributes or event.step in self._running
            if not repeated:
                self._running.start(event)
        else:
            running = event.step in self._running
            repeated = "retold" in event.attributes or ("lost" in event.attributes and not running)
        page.observe(event)
        if repeated:
            return
        series.observe(event)
        if isinstance(event, StepFinished | StepFailed):
            self._running.end(event.step)
            if event.kind == ENGINE_INIT.name:
                self.server = EngineServer.of(event)
            if event.kind in ("node", "cluster"):
                self._apply_outcome(event)

    def _apply_outcome(self, event: StepFinished | StepFailed) -> None:
        if isinstance(event, StepFinished):
            self.set_status("ready")
            if event.kind == "node":
                model = redact_name(str(event.attributes.get("model", "")))
                self._startup.labels(self.name, model).set(event.seconds)
        else:
            self.set_status("lost" if event.outcome == "died" else "failed", str(event.error))

    def running_steps(self) -> Sequence[RecordedStep]:
        """Return the steps that have begun and not ended."""
        steps = []
        for event in self._running.all():
            step = RecordedStep.of(event, self.name)
            step.update(event)
            steps.append(step)
        return steps

    def export(self) -> None:
        """Update the metrics that depend on the state."""
        self._ready.set(self.status == "ready")
        phase = self.phase
        if phase != self._exported_phase:
            if self._exported_phase is not None:
                self._phase.remove(self.name, self._exported_phase)
            if phase is not None:
                self._phase.labels(self.name, phase).set(1)
            self._exported_phase = phase

    def describe(self) -> dict[str, Any]:
        """Return the state as data for JSON."""
        return {
            "name": self.name,
            "status": self.status,
            "phase": self.phase,
            "host": self.host,
            "metrics": self.target,
            "url": None if self.server is None else self.server.url,
            **({"error": self.error} if self.error else {}),
        }
