"""The current steps of a run, for any number of readers of any speed: the page, the terminal, `phasebus watch`.

A reader passes the version that it has, and receives the steps that have changed since then. Nothing is kept for a reader,
however slow it is.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from phasebus import __version__
from phasebus.telemetry.redaction import printable_number, redact_name
from phasebus.telemetry.redaction.printable import printable_value
from phasebus.telemetry.run import RunIdentity

MOST_STEPS: Final = 50_000
"""Maximum number of steps: those of the start of 500 nodes. Later ones are counted and left out."""

_RATE_SECONDS: Final = 3.0
"""The time over which a rate is smoothed, in seconds."""

ENCODED_AT_ONCE: Final = 1000
"""Steps that are encoded before other requests are answered."""


@dataclass(slots=True, kw_only=True)
class LiveStep:
    """The current state of a step.

    Attributes:
        id: Its id, and that of its span.
        parent: The id of the step it belongs to, or None.
        node: The node it runs on; "" for what belongs to no single one.
        kind: Its kind.
        name: Its name.
        start: Its start, in seconds since the epoch.
        end: Its end, likewise; None while it runs.
        outcome: ``"running"``, ``"finished"``, or how it failed.
        error: The error that ended it; None if none did.
        attributes: Its attributes.
        done: The amount that is done, in `unit`; None if it reports no progress.
        total: The whole amount; None if unknown.
        unit: The unit, in UCUM notation.
        rate: The amount done in a second, smoothed; None while unknown.
    """

    id: str
    parent: str | None
    node: str
    kind: str
    name: str
    start: float
    end: float | None = None
    outcome: str = "running"
    error: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    done: float | None = None
    total: float | None = None
    unit: str = "1"
    rate: float | None = None

    def plain(self) -> dict[str, Any]:
        """Return it as JSON data, without unknown fields."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in fields.items() if value is not None and value != {}}


class Timeline:
    """The current steps of a run. All methods may be called from any thread.

    Args:
        identity: The run.
        trace_url: The address of a trace, with ``{trace}`` and ``{span}`` in the places of their ids.
    """

    def __init__(self, identity: RunIdentity, trace_url: str | None = None) -> None:
        self.identity = identity
        self.trace_url = trace_url
        self.closed = False
        self.epoch = secrets.token_hex(4)  # a version means something only to the timeline that assigned it
        self._lock = threading.Lock()
        self._steps: dict[str, LiveStep] = {}
        self._changed: dict[str, int] = {}  # by the id of a step, in the order of the versions
        self._progress_times: dict[str, float] = {}  # of the last progress of each running step
        self._version = 0
        self._left_out = 0
        self._encoded: dict[str, str] = {}  # the steps that have not changed since, as JSON
        self._encoded_changes: tuple[int, int, str] = (-1, -1, "")

    @property
    def version(self) -> int:
        """A number that grows with every change."""
        return self._version

    def started(self, step: LiveStep) -> None:
        """Record the start of a step; its node is that of its parent, if that is known."""
        with self._lock:
            if step.id in self._steps:
                return  # recorded again, by a process that took over
            if len(self._steps) >= MOST_STEPS:
                self._left_out += 1
                return
            parent = self._steps.get(step.parent or "")
            if step.kind == "node":
                step.node = str(step.attributes.get("node", step.name))
            elif step.kind == "cluster":
                step.node = ""
            elif parent is not None and parent.kind != "cluster":
                step.node = parent.node
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
                self._touch(id_)

    def close(self) -> None:
        """Mark the timeline as complete, for every reader."""
        self.closed = True

    def state(self) -> dict[str, Any]:
        """Return all of it as JSON data."""
        with self._lock:
            return self._about() | {"steps": [step.plain() for step in self._steps.values()]}

    def encode_some(self) -> bool:
        """Encode a number of the steps that have changed; return whether there are more."""
        with self._lock:
            if len(self._encoded) == len(self._steps):
                return False
            missing = (id_ for id_ in self._changed if id_ not in self._encoded)
            for id_ in list(islice(missing, ENCODED_AT_ONCE)):
                self._encode(id_)
            return len(self._encoded) < len(self._steps)

    def encoded_state(self) -> tuple[int, str]:
        """Return the version and the whole state as JSON; quick after `encode_some`."""
        with self._lock:
            about = json.dumps(self._about(), ensure_ascii=False)
            steps = ",".join([self._encoded.get(id_) or self._encode(id_) for id_ in self._steps])
            return self._version, f'{about[:-1]}, "steps": [{steps}]}}'

    def changes(self, since: int) -> tuple[int, str]:
        """Return the current version and, as JSON, the steps that have changed since the version `since`."""
        with self._lock:
            if self._encoded_changes[:2] != (since, self._version):
                changed = []
                for id_, version in reversed(self._changed.items()):
                    if version <= since:
                        break
                    changed.append(self._encoded.get(id_) or self._encode(id_))
                now = json.dumps(self._now(), ensure_ascii=False)
                steps = ",".join(reversed(changed))
                self._encoded_changes = (since, self._version, f'{now[:-1]}, "steps": [{steps}]}}')
            return self._version, self._encoded_changes[2]

    def _encode(self, id_: str) -> str:
        encoded = self._encoded[id_] = json.dumps(self._steps[id_].plain(), ensure_ascii=False, default=printable_value)
        return encoded

    def _touch(self, id_: str) -> None:
        self._version += 1
        self._changed.pop(id_, None)
        self._changed[id_] = self._version
        self._encoded.pop(id_, None)

    def _now(self) -> dict[str, Any]:
        return {"now": time.time(), "version": self._version, "left_out": self._left_out}

    def _about(self) -> dict[str, Any]:
        identity = self.identity
        about = {"run": identity.run, "node": identity.node, "trace": identity.trace, "phasebus": __version__}
        return about | self._now() | {"trace_url": self.trace_url, "closed": self.closed}
