"""The history of runs: how long this start will still take, from earlier ones; and which of those are kept."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from phasebus.bus import StepEvent, StepFailed, StepFinished, StepStarted
from phasebus.clock import now_ns
from phasebus.telemetry import names
from phasebus.telemetry.analysis.forecast import Remaining, Usual
from phasebus.telemetry.history import FINGERPRINT, EarlierStarts, earlier_starts, prune
from phasebus.telemetry.history.live import LiveForecast, plain_remaining, plain_usual
from phasebus.telemetry.journal import journal_path
from phasebus.telemetry.metrics import Metrics
from phasebus.telemetry.redaction import redact
from phasebus.telemetry.run import RunIdentity
from phasebus.telemetry.timeline import Timeline

logger = logging.getLogger("phasebus.telemetry")

_SECONDS: Final = 1.0
"""The time between two forecasts while no step begins or ends, in seconds."""

_MIN_CHANGE: Final = 0.02
"""A forecast is published if it differs by this share from the published one, which counts down by itself."""

_MIN_CHANGE_SECONDS: Final = 0.25


def find_earlier(root: StepStarted, run: str) -> EarlierStarts | None:
    """Return the earlier starts of this user like the one that begins with `root`, without the run with the id `run`."""
    return earlier_starts(root.kind, root.attributes, run=run)


class HistoryObserver:
    """Forecasts a start from earlier ones, and removes the journals of old runs, in a thread of its own.

    The outermost step of a start names its configuration. Of the processes of a run, only the one that started it forecasts
    and prunes; on each other machine, one process prunes.

    Args:
        identity: The run; None to forecast the start of a whole cluster, and to prune nothing.
        timeline: Receives the time remaining, and the usual durations of steps.
        metrics: Receive the time remaining.
        find: Returns the earlier starts like one with this beginning; the second argument is the run's id.
        seconds: The time between two forecasts while no step begins or ends, in seconds; a quarter of it otherwise.
    """

    def __init__(
        self,
        identity: RunIdentity | None,
        timeline: Timeline,
        metrics: Metrics,
        *,
        find: Callable[[StepStarted, str], EarlierStarts | None] = find_earlier,
        seconds: float = _SECONDS,
    ) -> None:
        self._identity = identity
        self._timeline = timeline
        self._metrics = metrics
        self._find = find
        self._seconds = seconds
        self._root: StepStarted | None = None
        self._forecast: LiveForecast | None = None
        self._published: tuple[float, Remaining] | None = None
        self._following: Sequence[Mapping[str, Any]] = ()
        self._due = 0.0
        self._unset_usual: dict[str, Usual] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def observe(self, event: StepEvent) -> None:
        """Record an event of a step."""
        self.observe_node(event)

    def observe_node(self, event: StepEvent, node: str = "") -> None:
        """Record an event of a step of a node; `node` is "" for the process that started the cluster."""
        if self._root is None and isinstance(event, StepStarted):
            self._begin(event)
        if self._forecast is None or self._ended.is_set():
            return
        self._forecast.observe(event, node)
        if self._root is not None and event.step == self._root.step and isinstance(event, StepFinished | StepFailed):
            self.close()
        elif time.monotonic() >= self._due:
            self._publish()

    def close(self) -> None:
        """Stop forecasting: nothing remains."""
        with self._lock:
            self._ended.set()
            if self._published is not None:
                self._published = None
                self._timeline.expect(None)
                self._metrics.series(names.REMAINING, {}).set(0)

    def _begin(self, event: StepStarted) -> None:
        if self._identity is None and event.kind != "cluster":
            return
        self._root = event
        if FINGERPRINT in event.attributes and (self._identity is None or not self._identity.member):
            self._forecast = LiveForecast(event)
        threading.Thread(target=self._run, args=(event,), name="phasebus history", daemon=True).start()

    def _run(self, root: StepStarted) -> None:
        try:
            found = self._compare(root)
            self._prune()
        except Exception as error:  # noqa: BLE001  # an odd journal must not end the thread with a traceback
            logger.warning("no forecast of this start: %s: %s", type(error).__name__, redact(str(error)))
            return
        while found and not self._ended.is_set():
            self._publish()
            self._ended.wait(self._seconds)

    def _compare(self, root: StepStarted) -> bool:
        if self._forecast is None:
            return False
        earlier = self._find(root, "" if self._identity is None else self._identity.run)
        if earlier is not None:
            self._forecast.compare_with(earlier)
        return earlier is not None

    def _prune(self) -> None:
        identity = self._identity
        if identity is None or (identity.member and os.path.exists(journal_path(identity.run))):
            return
        if removed := prune(keep=identity.run):
            logger.info("removed the journals of %d old runs; PHASEBUS_KEEP_RUNS keeps more", len(removed))

    def _publish(self) -> None:
        """Publish the forecast if it has changed, and the usual durations of steps that the timeline has by now."""
        with self._lock:
            if self._forecast is None or self._ended.is_set():
                return
            self._due = time.monotonic() + self._seconds / 4
            self._unset_usual |= self._forecast.new_usual()
            for step, usual in list(self._unset_usual.items()):
                if self._timeline.set_usual(step, plain_usual(usual)):
                    del self._unset_usual[step]
            now = now_ns() / 1e9
            remaining = self._forecast.remaining(int(now * 1e9))
            if remaining is None:
                return
            self._metrics.series(names.REMAINING, {}).set(remaining.seconds)
            following = self._forecast.following()
            if self._published is None or following != self._following or _differs(*self._published, now, remaining):
                self._published, self._following = (now, remaining), following
                self._timeline.expect({**plain_remaining(remaining), "following": following})


def _differs(since: float, published: Remaining, now: float, remaining: Remaining) -> bool:
    """Return whether `remaining` differs from what was published, which has counted down meanwhile."""
    passed = now - since
    least = max(_MIN_CHANGE_SECONDS, _MIN_CHANGE * remaining.seconds)
    return any(
        abs(max(0.0, before - passed) - after) > least
        for before, after in (
            (published.seconds, remaining.seconds),
            (published.low, remaining.low),
            (published.high, remaining.high),
        )
    )
