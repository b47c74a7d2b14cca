"""Reading a journal back: the steps of a run, as far as they were recorded."""

from __future__ import annotations

import codecs
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import psutil

from phasebus.bus import StepEvent, StepFailed, StepFinished
from phasebus.telemetry.files import open_regular
from phasebus.telemetry.journal.decoder import decode_line
from phasebus.telemetry.journal.events import DecodeError, JournalClosed, JournalEvent, JournalOpened, PhaseMoment
from phasebus.telemetry.journal.format import JournalError
from phasebus.telemetry.journal.process_start import process_start
from phasebus.telemetry.stuck import StuckSteps

_MAX_LINE_BYTES: Final = 1024 * 1024
_CLOCK_OFFSET: Final = "clock_offset_seconds"
"""The attribute of the start of a member's process: how far its clock is ahead, in seconds."""

_MAX_CLOCK_OFFSET: Final = 4e9
"""The largest difference that is corrected, in seconds: more than that of a machine whose clock begins in 1970."""


@dataclass(slots=True, kw_only=True)
class RecordedStep:
    """A step as a journal records it: all of its events in one, for the readers that need its whole duration.

    Attributes:
        id: Its id, and that of its span.
        parent: The id of the step it belongs to, or None.
        node: The node it ran on.
        kind: Its kind.
        name: Its name.
        start_ns: When it began, in nanoseconds since the epoch.
        end_ns: When it ended; None while it runs, or if its end was never recorded.
        outcome: ``"running"``, ``"finished"``, or how it failed: ``"failed"``, ``"cancelled"``, ``"timed_out"``,
            ``"died"``.
        error: What it failed with; None if it did not.
        attributes: Its last known attributes.
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

    @classmethod
    def of(cls, event: StepEvent, node: str) -> Self:
        """Return the step that begins with `event` on `node`."""
        return cls(
            id=event.step,
            parent=event.parent,
            node=node,
            kind=event.kind,
            name=event.name,
            start_ns=event.time_ns,
            traced=event.traced,
        )

    def update(self, event: StepEvent) -> None:
        """Record what `event` adds: attributes, and the end."""
        if event.attributes:
            self.attributes = {**self.attributes, **event.attributes}
        self.parent = event.parent or self.parent  # at its end, a step of an engine knows it better
        if isinstance(event, StepFinished):
            self.end_ns, self.outcome, self.error = event.time_ns, "finished", None
        elif isinstance(event, StepFailed):
            self.end_ns, self.outcome, self.error = event.time_ns, event.outcome, str(event.error)

    def seconds(self, now_ns: int) -> float:
        """Return how long it took, or has taken until `now_ns` (nanoseconds since the epoch)."""
        return max(0, (self.end_ns if self.end_ns is not None else now_ns) - self.start_ns) / 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run as its journal records it.

    Attributes:
        path: The journal.
        run: The run's id.
        node: The node's name.
        trace: The trace id.
        phasebus: The version of phasebus that wrote it.
        start_ns: When the journal was opened, in nanoseconds since the epoch.
        end_ns: The latest recorded time, likewise; now, if the run is still going on.
        state: ``"closed"`` in order; ``"running"`` still; or its process ``"died"``.
        steps: Its steps, in the order they began.
        moments: Its phase events, in order.
        stuck: The steps that were stuck each time that this changed, in order; those of members come first.
        skipped: The number of lines, also of members, that could not be decoded.
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
    stuck: tuple[StuckSteps, ...] = ()
    skipped: int = 0

    @property
    def root(self) -> RecordedStep | None:
        """The outermost step: the first that has no parent in this journal."""
        ids = {step.id for step in self.steps}
        return next((step for step in self.steps if step.parent not in ids), None)


def read_journal(path: Path, *, until_ready: bool = False) -> Run:
    """Read the journal at `path`, and the journals of the run's members in the folder beside it.

    A journal that is cut off, or still being written, is read as far as it goes; lines that cannot be decoded are
    skipped and counted. The times of members whose clocks differ are moved to the clock of this journal, as far as the start
    has measured the difference.

    Args:
        path: The journal.
        until_ready: Whether reading stops at the end of the outermost step, and leaves out what the process did later.

    Raises:
        JournalError: The file does not exist, is not a journal, or was written by a newer phasebus.
    """
    steps: dict[str, RecordedStep] = {}
    stuck: list[StuckSteps] = []
    skipped = 0
    for member in _members(path):
        with suppress(JournalError):  # the others of the run are worth reading without it
            of_member = read_journal(member, until_ready=until_ready)
            steps |= {step.id: step for step in of_member.steps}
            stuck += of_member.stuck
            skipped += of_member.skipped
    ended = {id_: step.end_ns is not None for id_, step in steps.items()}
    # the run's own journal comes last: it records the ends of a lost member's steps
    contents = _Contents(path, steps, until_ready=until_ready)
    _move_to_one_clock(steps, ended)
    opened, state, end_ns = contents.opened, contents.state, contents.end_ns
    if state == "died":
        for step in steps.values():
            if step.end_ns is None:
                step.outcome, step.end_ns, step.error = "died", end_ns, "its process died"
    elif state == "running":
        end_ns = max(end_ns, time.time_ns())
    return Run(
        path=path,
        run=opened.run,
        node=opened.node,
        trace=opened.trace,
        phasebus=opened.phasebus,
        start_ns=opened.time_ns,
        end_ns=end_ns,
        state=state,
        steps=tuple(sorted(steps.values(), key=lambda step: step.start_ns)),
        moments=tuple(contents.moments),
        stuck=(*stuck, *contents.stuck),
        skipped=skipped + contents.skipped,
    )


def _members(path: Path) -> Iterator[Path]:
    """Yield the journals beside the one at `path` that its run's members wrote; what others may have put there is left out."""
    folder = path.with_suffix("")
    try:
        owner, status = path.stat().st_uid, folder.lstat()
        if status.st_uid != owner or not stat.S_ISDIR(status.st_mode):
            return
        found = sorted(each for each in folder.iterdir() if each.suffix == ".jsonl")
    except OSError:
        return
    for member in found:
        with suppress(OSError):
            if member.lstat().st_uid == owner:
                yield member


def _move_to_one_clock(steps: Mapping[str, RecordedStep], ended: Mapping[str, bool]) -> None:
    """Subtract from the times of each member how far its clock is ahead, if the start of its process records that.

    Args:
        steps: All steps, by their ids.
        ended: The ids of the members' steps, and whether the member has recorded the end as well.
    """
    offsets_ns = {
        step.attributes.get("member"): int(offset * 1e9)
        for step in steps.values()
        if isinstance(offset := step.attributes.get(_CLOCK_OFFSET), int | float) and abs(offset) < _MAX_CLOCK_OFFSET
    }
    for id_, has_ended in ended.items():
        step = steps[id_]
        ahead_ns = offsets_ns.get(step.node, 0)
        step.start_ns = max(0, step.start_ns - ahead_ns)
        if has_ended and step.end_ns is not None:
            step.end_ns = max(0, step.end_ns - ahead_ns)


class _Contents:
    """What one file records.

    Args:
        path: The file.
        steps: Receives its steps, by their ids; those that are there already are updated.
        until_ready: Whether reading stops at the end of the outermost step.
    """

    def __init__(self, path: Path, steps: dict[str, RecordedStep], *, until_ready: bool) -> None:
        self.moments: list[PhaseMoment] = []
        self.stuck: list[StuckSteps] = []
        self.skipped = 0
        self._steps = steps
        lines = _lines(path)
        self.opened = _opened(path, next(lines, b""))
        self.end_ns = self.opened.time_ns
        self._last: JournalEvent = self.opened
        root = ""
        for event in self._events(lines):
            self._last = event
            self._add(event)
            if isinstance(event, StepEvent):
                root = root or event.step
                if until_ready and event.step == root and isinstance(event, StepFinished | StepFailed):
                    break

    @property
    def state(self) -> str:
        """Whether the journal is closed, its process is running, or that has died."""
        if isinstance(self._last, JournalClosed):
            return "closed"
        return "running" if is_writer_alive(self.opened) else "died"

    def _events(self, lines: Iterable[bytes]) -> Iterator[JournalEvent]:
        for line in lines:
            try:
                event = decode_line(line)
            except DecodeError:
                self.skipped += 1
            else:
                if event is not None:
                    yield event

    def _add(self, event: JournalEvent) -> None:
        self.end_ns = max(self.end_ns, event.time_ns)
        if isinstance(event, StepEvent):
            step = self._steps.get(event.step)
            if step is None:
                node = event.attributes["node"] if "lost" in event.attributes else self.opened.node
                step = self._steps[event.step] = RecordedStep.of(event, str(node))
                if isinstance(event, StepFinished | StepFailed):  # the line of its start is lost
                    step.start_ns = max(0, event.time_ns - int(event.seconds * 1e9))
            step.update(event)
        elif isinstance(event, PhaseMoment):
            self.moments.append(event)
        elif isinstance(event, StuckSteps):
            self.stuck.append(event)


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the whole lines of a file without ever holding more than one; one that is too long is empty."""
    try:
        with os.fdopen(open_regular(path, os.O_RDONLY, follow=True), "rb") as file:
            while line := file.readline(_MAX_LINE_BYTES):
                if line.endswith(b"\n"):
                    yield line
                elif len(line) == _MAX_LINE_BYTES:
                    while (rest := file.readline(_MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                        pass
                    yield b""
    except OSError as error:
        raise JournalError(f"cannot read the journal {path}: {error.strerror}") from error


def _opened(path: Path, line: bytes) -> JournalOpened:
    try:
        opened = decode_line(line.removeprefix(codecs.BOM_UTF8))  # some editors put it there
    except DecodeError as error:
        raise JournalError(f"{path} is not a journal that this phasebus can read: first line: {error}") from error
    if not isinstance(opened, JournalOpened):
        raise JournalError(f"{path} is not a journal of phasebus: its first line is not that of a journal")
    return opened


def is_writer_alive(opened: JournalOpened) -> bool:
    """Return whether the process that opened the journal still runs on this machine."""
    if opened.process_start is not None and process_start(os.getpid()) is not None:
        return process_start(opened.pid) == opened.process_start
    if opened.process_created is None:
        return False
    try:
        return bool(abs(psutil.Process(opened.pid).create_time() - opened.process_created) < 1)
    except (psutil.Error, ValueError, OverflowError):
        return False
