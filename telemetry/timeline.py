"""The steps of a run as they stand, for any number of readers of any speed: the page, the terminal, `phasebus watch`.

A reader says up to which version it knows, and gets the steps that have changed since, each as it stands now. However
slow it is, nothing is kept for it and nothing piles up.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from phasebus import __version__
from phasebus.telemetry.run import RunIdentity

MOST_STEPS: Final = 50_000
"""How many steps are kept: those of the start of 500 nodes. What begins later is counted and left out."""

_RATE_SECONDS: Final = 3.0
"""Over how long a rate is smoothed, in seconds."""


@dataclass(slots=True, kw_only=True)
class LiveStep:
    """A step as it stands.

    Attributes:
        id: Its id, and that of its span.
        parent: The id of the step it belongs to, or None.
        node: The node it runs on; "" for what belongs to no single one.
        kind: Its kind.
        name: Its name.
        start: When it began, in seconds since the epoch.
        end: When it ended, likewise; None while it runs.
        outcome: ``"running"``, ``"finished"``, or how it failed.
        error: What it failed with; None if it did not.
        attributes: What is known of it.
        done: How much is done, in `unit`; None if it does not tell.
        total: How much there is to do; None if that is not known.
        unit: The unit, in UCUM notation.
        rate: How much is done in a second of late; None before that is known.
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
        """Return it as JSON will say it: without what is not known."""
        return {key: value for key, value in asdict(self).items() if value is not None and value != {}}


class Timeline:
    """The steps of a run as they stand. All methods may be called from any thread.

    Args:
        identity: The run.
        trace_url: Where a trace is looked at, with ``{trace}`` and ``{span}`` in the places of their ids.
    """

    def __init__(self, identity: RunIdentity, trace_url: str | None = None) -> None:
        self.identity = identity
        self.trace_url = trace_url
        self.closed = False
        self.epoch = secrets.token_hex(4)  # a reader's version means something only to the timeline that told it
        self._lock = threading.Lock()
        self._steps: dict[str, LiveStep] = {}
        self._changed: dict[str, int] = {}  # by the id of a step, in the order of the versions
        self._told: dict[str, float] = {}  # when a step told last how far it is
        self._version = 0
        self._left_out = 0
        self._encoded: tuple[int, int, str] = (-1, -1, "")

    @property
    def version(self) -> int:
        """A number that grows with every change."""
        return self._version

    def started(self, step: LiveStep) -> None:
        """Note that a step has begun; its node is that of the step it belongs to, if there is one."""
        with self._lock:
            if step.id in self._steps:
                return  # told once more, by somebody who took over
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
        """Note how far a step is, `seconds` seconds after the epoch."""
        with self._lock:
            step = self._steps.get(id_)
            if step is None or step.end is not None:
                return
            passed = seconds - self._told.get(id_, seconds)
            self._told[id_] = seconds
            if step.done is not None and passed > 0:
                rate = max(0.0, done - step.done) / passed
                weight = min(1.0, passed / _RATE_SECONDS)
                step.rate = rate if step.rate is None else step.rate + weight * (rate - step.rate)
            step.done, step.total, step.unit = done, total, unit
            self._touch(id_)

    def ended(self, id_: str, seconds: float, outcome: str, error: str | None, attributes: Mapping[str, Any]) -> None:
        """Note that a step has ended, `seconds` seconds after the epoch, and how."""
        with self._lock:
            step = self._steps.get(id_)
            if step is not None:
                step.end, step.outcome, step.error, step.rate = seconds, outcome, error, None
                step.attributes.update(attributes)
                self._told.pop(id_, None)
                self._touch(id_)

    def close(self) -> None:
        """Let every reader know that there is nothing more to come."""
        self.closed = True

    def state(self) -> dict[str, Any]:
        """Return all of it as JSON will say it."""
        with self._lock:
            return self._about() | {"steps": [step.plain() for step in self._steps.values()]}

    def changes(self, since: int) -> tuple[int, str]:
        """Return the current version and, as JSON, the steps that have changed since the version `since`."""
        with self._lock:
            if self._encoded[:2] != (since, self._version):
                changed = []
                for id_, version in reversed(self._changed.items()):
                    if version <= since:
                        break
                    changed.append(self._steps[id_].plain())
                said = json.dumps(self._moment() | {"steps": changed[::-1]}, ensure_ascii=False)
                self._encoded = (since, self._version, said)
            return self._version, self._encoded[2]

    def _touch(self, id_: str) -> None:
        self._version += 1
        self._changed.pop(id_, None)
        self._changed[id_] = self._version

    def _moment(self) -> dict[str, Any]:
        return {"now": time.time(), "version": self._version, "left_out": self._left_out}

    def _about(self) -> dict[str, Any]:
        identity = self.identity
        about = {"run": identity.run, "node": identity.node, "trace": identity.trace, "phasebus": __version__}
        return about | self._moment() | {"trace_url": self.trace_url, "closed": self.closed}
