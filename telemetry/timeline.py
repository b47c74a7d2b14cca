"""The current steps of a run, for any number of readers of any speed: the page, the terminal, `phasebus watch`.

A reader passes the version that it has, and receives the steps that have changed since then, a part at a time. No state is
kept for a reader, however slow it is. The number of steps is limited, so that a process may run for months.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from phasebus import __version__
from phasebus.clock import now_ns
from phasebus.printable import printable_value
from phasebus.telemetry.change_log import ChangeLog
from phasebus.telemetry.live_step import LiveStep
from phasebus.telemetry.redaction import printable_number, redact_name
from phasebus.telemetry.remaining import count_down
from phasebus.telemetry.run import RunIdentity

_NODE_KINDS: Final = ("cluster", "node")

_RATE_SECONDS: Final = 3.0
"""The time over which a rate is smoothed, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """How many steps a timeline keeps.

    Attributes:
        steps: Maximum number of steps; by default, those of the start of 500 nodes.
        start_steps: The number of first steps, those of the start, that are never evicted. Of the later ones, the one that
            ended first is evicted when there are `steps`; the steps of whole nodes last, and running steps never.
        removed: Evictions that are remembered. A reader that missed more of them starts again with the whole state.
    """

    steps: int = 50_000
    start_steps: int = 25_000
    removed: int = 10_000


class Timeline:
    """The current steps of a run. All methods may be called from any thread.

    Args:
        identity: The run.
        trace_url: The address of a trace, with ``{trace}`` and ``{span}`` in the places of their ids.
        capacity: How many steps it keeps.

    Attributes:
        journal: The journal of the run on this machine, which the page offers; None if there is none.
    """

    def __init__(self, identity: RunIdentity, trace_url: str | None = None, *, capacity: Capacity = Capacity()) -> None:
        self._capacity = capacity
        self.identity = identity
        self.trace_url = trace_url
        self.closed = False
        self.journal: Path | None = None
        self.epoch = secrets.token_hex(4)  # a version means something only to the timeline that assigned it
        self._lock = threading.Lock()
        self._steps: dict[str, LiveStep] = {}
        self._kept: set[str] = set()  # the ids of the first steps
        self._ended: OrderedDict[str, None] = OrderedDict()  # those that may be evicted, in the order of their ends
        self._ended_nodes: OrderedDict[str, None] = OrderedDict()  # likewise, but only without others
        self._log = ChangeLog(capacity.removed)
        self._progress_times: dict[str, float] = {}  # of the last progress of each running step
        self._left_out = 0
        self._encoded: dict[str, str] = {}  # the steps that have not changed since, as JSON
        self._encoded_changes: tuple[int, int, int, tuple[int, str]] = (-1, -1, -1, (-1, ""))
        self._remaining: tuple[float, Mapping[str, Any] | None] = (0.0, None)  # since when it holds
        self._stuck: list[dict[str, Any]] = []

    @property
    def version(self) -> int:
        """A number that grows with every change."""
        return self._log.version

    def started(self, step: LiveStep) -> None:
        """Record the start of a step; its node is that of its parent, if that is known."""
        with self._lock:
            if step.id in self._steps:
                return  # recorded again, by a process that took over
            if len(self._steps) >= self._capacity.steps:
                self._left_out += 1
                if not self._evict():
                    return
            parent = self._steps.get(step.parent or "")
            if step.kind == "node":
                step.node = str(step.attributes.get("node", step.name))
            elif step.kind == "cluster":
                step.node = ""
            elif parent is not None and parent.kind != "cluster":
                step.node = parent.node
            if len(self._kept) < self._capacity.start_steps:
                self._kept.add(step.id)
            self._steps[step.id] = step
            self._touch(step.id)

    def progressed(self, id_: str, done: float, total: float | None, unit: str, seconds: float) -> None:
        """Record the progress of a step, `seconds` seconds after the epoch; numbers that are not finite are unknown."""
        with self._lock:
            step = self._steps.get(id_)
            if step is None or step.end is not None or (amount := printable_number(done)) is None:
                return
            passed = seconds - self._progress_times.get(id_, seconds)
            self._progress_times[id_] = seconds
            if step.done is not None and passed > 0:
                rate = max(0.0, amount - step.done) / passed
                weight = min(1.0, passed / _RATE_SECONDS)
                step.rate = printable_number(rate if step.rate is None else step.rate + weight * (rate - step.rate))
            step.done, step.total, step.unit = amount, printable_number(total), redact_name(unit)
            self._touch(id_)

    def ended(self, id_: str, seconds: float, outcome: str, error: str | None, attributes: Mapping[str, Any]) -> None:
        """Record the end of a step, `seconds` seconds after the epoch, and its outcome."""
        with self._lock:
            step = self._steps.get(id_)
            if step is not None:
                step.end, step.outcome, step.error, step.rate = seconds, outcome, error, None
                step.attributes.update(attributes)
                self._progress_times.pop(id_, None)
                if id_ not in self._kept:
                    (self._ended_nodes if step.kind in _NODE_KINDS else self._ended)[id_] = None
                self._touch(id_)

    def expect(self, remaining: Mapping[str, Any] | None) -> None:
        """Record the time remaining until the start is ready, as of now.

        Args:
            remaining: ``seconds``, the range from ``low`` to ``high``, the number of earlier ``runs`` and their ``basis``
                (``"same"`` or ``"similar"`` configuration), and perhaps the steps that usually are ``following``; None if
                unknown.
        """
        with self._lock:
            self._remaining = now_ns() / 1e9, remaining
            self._log.version += 1  # readers receive a change without steps

    @property
    def remaining(self) -> dict[str, Any] | None:
        """The time remaining until the start is ready, in the form of `expect`; None if unknown."""
        return self._remaining_at(now_ns() / 1e9)

    def set_usual(self, id_: str, usual: dict[str, float] | None) -> bool:
        """Record the usual duration of a step, see `LiveStep.usual`; return whether the step is there."""
        with self._lock:
            step = self._steps.get(id_)
            if step is not None and step.usual != usual:
                step.usual = usual
                self._touch(id_)
            return step is not None

    def usual_of(self, id_: str) -> Mapping[str, float] | None:
        """Return the usual duration of a step; see `LiveStep.usual`."""
        step = self._steps.get(id_)
        return None if step is None else step.usual

    def set_stuck(self, stuck: Sequence[Mapping[str, Any]]) -> None:
        """Record the steps that are stuck now, the one that the others wait for first, each with its evidence as JSON data."""
        with self._lock:
            if list(map(dict, stuck)) != self._stuck:
                self._stuck = list(map(dict, stuck))
                self._log.version += 1

    def close(self) -> None:
        """Mark the timeline as complete, for every reader."""
        self.closed = True

    def state(self) -> dict[str, Any]:
        """Return all of it as JSON data."""
        with self._lock:
            return self._about() | {"steps": [step.plain() for step in self._steps.values()]}

    def is_resumable(self, version: int) -> bool:
        """Return whether a reader with `version` can continue with `changes`, and does not need the whole state."""
        return self._log.is_resumable(version)

    def contents(self) -> tuple[int, str, list[str]]:
        """Return the version, what is known of the run as a JSON object, and the ids of the steps for `encoded_steps`."""
        with self._lock:
            return self.version, json.dumps(self._about(), ensure_ascii=False), list(self._steps)

    def encoded_steps(self, ids: Sequence[str], start: int, characters: int) -> tuple[str, int]:
        """Return as JSON, separated by commas, the steps `ids` from index `start` on, and the index of the next one.

        Args:
            ids: The ids, of which evicted ones are skipped.
            start: The index of the first one.
            characters: The text ends with the step that reaches this length.
        """
        found: list[str] = []
        with self._lock:
            at, length = start, 0
            while at < len(ids) and length < characters:
                if ids[at] in self._steps:
                    found.append(self._encoded.get(ids[at]) or self._encode(ids[at]))
                    length += len(found[-1])
                at += 1
        return ",".join(found), at

    def changes(self, since: int, characters: int = 1 << 62) -> tuple[int, str]:
        """Return as JSON the steps that have changed after the version `since`, and the version that the reader then has.

        Args:
            since: A version for which `is_resumable` is true.
            characters: The text ends with the step that reaches this length.
        """
        with self._lock:
            if self._encoded_changes[:3] != (since, self.version, characters):
                self._encoded_changes = (since, self.version, characters, self._changes(since, characters))
            return self._encoded_changes[3]

    def encoded_now(self, steps: str, removed: Sequence[str] = ()) -> str:
        """Return a change as JSON: `steps`, in the form of `encoded_steps`, and the ids of evicted ones."""
        now = json.dumps(self._now() | {"removed": removed}, ensure_ascii=False)
        return f'{now[:-1]}, "steps": [{steps}]}}'

    def _changes(self, since: int, characters: int) -> tuple[int, str]:
        changed: list[str] = []
        removed: list[str] = []
        length, reached = 0, since
        for version, id_, is_there in self._log.since(since):
            if length >= characters:
                break
            reached = version
            if is_there:
                changed.append(self._encoded.get(id_) or self._encode(id_))
                length += len(changed[-1])
            else:
                removed.append(id_)
                length += len(id_)
        else:
            reached = self.version
        return reached, self.encoded_now(",".join(changed), removed)

    def _evict(self) -> bool:
        """Remove a step that has ended, if there is one that may be removed."""
        queue = self._ended or self._ended_nodes
        if not queue:
            return False
        id_, _ = queue.popitem(last=False)
        del self._steps[id_]
        self._encoded.pop(id_, None)
        self._log.remove(id_)
        return True

    def _encode(self, id_: str) -> str:
        encoded = self._encoded[id_] = json.dumps(self._steps[id_].plain(), ensure_ascii=False, default=printable_value)
        return encoded

    def _touch(self, id_: str) -> None:
        self._log.change(id_)
        self._encoded.pop(id_, None)

    def _now(self) -> dict[str, Any]:
        about = {"now": now_ns() / 1e9, "version": self.version, "left_out": self._left_out}
        return about | {
            "remaining": self._remaining_at(about["now"]),
            "stuck": self._stuck,
        }

    def _remaining_at(self, now: float) -> dict[str, Any] | None:
        since, remaining = self._remaining
        return count_down(remaining, now - since)

    def _about(self) -> dict[str, Any]:
        identity = self.identity
        about: dict[str, Any] = {
            "run": identity.run,
            "node": identity.node,
            "trace": identity.trace,
            "phasebus": __version__,
        }
        about["exports"] = ["perfetto"] if self.journal is None else ["perfetto", "journal"]
        return about | self._now() | {"trace_url": self.trace_url, "closed": self.closed}
