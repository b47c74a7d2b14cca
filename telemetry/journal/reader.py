"""Reading a journal back: the steps of a run, as far as they were written down."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from phasebus.telemetry.journal.format import FOOTER, FORMAT, HEADER, JournalError


@dataclass(slots=True, kw_only=True)
class RecordedStep:
    """A step as the journal tells of it.

    Attributes:
        id: Its id, and that of its span.
        parent: The id of the step it belongs to, or None.
        node: The node it ran on.
        kind: Its kind.
        name: Its name.
        start_ns: When it began, in nanoseconds since the epoch.
        end_ns: When it ended; None while it runs, or if its end was never written.
        outcome: ``"running"``, ``"finished"``, or how it failed: ``"failed"``, ``"cancelled"``, ``"timed_out"``,
            ``"died"``.
        error: What it failed with; None if it did not.
        attributes: What was known of it at last.
        traced: Whether the process that ran it exports its span by itself.
    """

    id: str
    parent: str | None
    node: str
    kind: str
    name: str
    start_ns: int
    end_ns: int | None = None
    outcome: str = "running"
    error: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    traced: bool = False

    def seconds(self, now_ns: int) -> float:
        """Return how long it took, or has taken until `now_ns` (nanoseconds since the epoch)."""
        return max(0, (self.end_ns if self.end_ns is not None else now_ns) - self.start_ns) / 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseMoment:
    """A phase event: the moment at which callbacks were called.

    Attributes:
        phase: The name of the phase.
        time_ns: When, in nanoseconds since the epoch.
    """

    phase: str
    time_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run as its journal tells of it.

    Attributes:
        path: The journal.
        run: The run's id.
        node: The node's name.
        trace: The trace id.
        phasebus: The version that wrote it.
        start_ns: When the journal was opened, in nanoseconds since the epoch.
        end_ns: Until when the journal tells of it, likewise: now, if it is running still.
        state: ``"closed"`` in order; ``"running"`` still; or its process ``"died"``.
        steps: Its steps, by when they began.
        moments: Its phase events, in order.
    """

    path: Path
    run: str
    node: str
    trace: str
    phasebus: str
    start_ns: int
    end_ns: int
    state: str
    steps: tuple[RecordedStep, ...]
    moments: tuple[PhaseMoment, ...]

    @property
    def root(self) -> RecordedStep | None:
        """The outermost step: the first that has no parent in this journal."""
        ids = {step.id for step in self.steps}
        return next((step for step in self.steps if step.parent not in ids), None)


def read_journal(path: Path) -> Run:
    """Read the journal at `path`; one cut off in the middle of a line, or still being written, is read as far as it goes.

    With it are read those of the run's members that are in the folder beside it, and none that is on another machine.

    Raises:
        JournalError: It is not there, is no journal, or was written by a newer phasebus.
    """
    lines = _lines(path)
    header = next(lines, {})
    if header.get("event") != HEADER:
        raise JournalError(f"{path} is not a journal of phasebus: its first line does not say so")
    if not isinstance(header.get("format"), int) or header["format"] > FORMAT:
        raise JournalError(
            f"{path} was written by phasebus {header.get('phasebus')} in format {header.get('format')}, "
            f"and this one reads up to {FORMAT}; read it with that version or a newer one"
        )
    # what the run's own journal tells of a lost member's steps comes later, and so is what holds
    steps = {
        step.id: step for each in sorted(path.with_suffix("").glob("*.jsonl")) for step in read_journal(each).steps
    }
    moments: list[PhaseMoment] = []
    try:
        last, end_ns = _take_all(header, lines, steps, moments)
        identity = {key: str(header[key]) for key in ("run", "node", "trace", "phasebus")}
    except (KeyError, TypeError) as error:
        raise JournalError(
            f"{path} is no journal that this phasebus can read: it was written by phasebus {header.get('phasebus')}, "
            f"and a line lacks what is expected there ({error})"
        ) from error
    state = "closed" if last["event"] == FOOTER else "running" if _is_alive(header) else "died"
    if state == "died":
        for step in steps.values():
            if step.end_ns is None:
                step.outcome, step.end_ns, step.error = "died", end_ns, "its process died"
    elif state == "running":
        end_ns = max(end_ns, time.time_ns())
    return Run(
        path=path,
        **identity,
        start_ns=header["time_ns"],
        end_ns=end_ns,
        state=state,
        steps=tuple(sorted(steps.values(), key=lambda step: step.start_ns)),
        moments=tuple(moments),
    )


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the whole lines; the last one may be cut off, any other that is not JSON makes the file no journal."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise JournalError(f"the journal {path} cannot be read: {error.strerror}") from error
    *whole, rest = content.split(b"\n")
    for number, line in enumerate(whole, 1):
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise JournalError(f"{path} is not a journal of phasebus: line {number} is not JSON") from error
        if not isinstance(entry, dict) or "event" not in entry or not isinstance(entry.get("time_ns"), int):
            raise JournalError(f"{path} is not a journal of phasebus: line {number} is no event")
        yield entry
    if not whole and rest:
        raise JournalError(f"{path} is not a journal of phasebus: it has no whole line")


def _take_all(
    header: dict[str, Any], lines: Iterator[dict[str, Any]], steps: dict[str, RecordedStep], moments: list[PhaseMoment]
) -> tuple[dict[str, Any], int]:
    """Take the steps and moments out of `lines`; return the last line, and the latest time any of them tells of."""
    last, end_ns = header, header["time_ns"]
    for line in lines:
        last = line
        end_ns = max(end_ns, line["time_ns"])
        if "span" in line:
            _take_step(steps, line)
        elif "phase" in line:
            moments.append(PhaseMoment(phase=line["phase"], time_ns=line["time_ns"]))
    return last, end_ns


def _take_step(steps: dict[str, RecordedStep], line: Mapping[str, Any]) -> None:
    step = steps.get(line["span"])
    if step is None:
        step = steps[line["span"]] = RecordedStep(
            id=line["span"],
            parent=line["parent"],
            node=line["node"],
            kind=line["kind"],
            name=line["name"],
            start_ns=line["time_ns"],
            traced=line.get("traced", False),
        )
    step.attributes = {**step.attributes, **line["attributes"]}
    if "outcome" in line:
        step.end_ns = line["time_ns"]
        step.outcome = line["outcome"]
        step.error = line.get("error", {}).get("message")


def _is_alive(header: Mapping[str, Any]) -> bool:
    """Return whether the process that opened the journal still runs on this machine."""
    try:
        return bool(abs(psutil.Process(header["pid"]).create_time() - header["process_created"]) < 1)
    except (psutil.Error, KeyError):
        return False
