"""The summary of a run, from the beginning of its journal and the end of its outermost step, without decoding the rest."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from phasebus.bus import StepEvent, StepFailed, StepFinished
from phasebus.telemetry.files import open_regular
from phasebus.telemetry.journal.decoder import decode_line
from phasebus.telemetry.journal.events import DecodeError, JournalClosed, JournalEvent, JournalOpened
from phasebus.telemetry.journal.format import MAX_LINE_BYTES, JournalError
from phasebus.telemetry.journal.reader import is_writer_alive

_MAX_BYTES: Final = 32 * 1024 * 1024
"""How much of a journal is read: a process that serves for months writes the end of its start long before that."""

_MAX_FIRST_BYTES: Final = 4 * MAX_LINE_BYTES
_MAX_FIRST_LINES: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class RunBeginning:
    """What the first lines of a journal record.

    Attributes:
        path: The journal.
        run: The run's id.
        kind: The kind of the outermost step; "" if none was begun.
        attributes: The attributes with which it began.
    """

    path: Path
    run: str
    kind: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """What is known of a run without its steps.

    Attributes:
        path: The journal.
        run: The run's id.
        phasebus: The version of phasebus that wrote it.
        host: The machine.
        start_ns: When the journal was opened, in nanoseconds since the epoch.
        state: ``"closed"`` in order, ``"running"`` still, or its process ``"died"``.
        step: The id of the outermost step; "" if none was begun.
        kind: Its kind.
        name: Its name.
        outcome: ``"running"``, ``"finished"``, or how it failed; ``"unknown"`` if a closed journal lacks the end; "" without
            a step.
        seconds: How long it took; None if its end is not recorded.
        attributes: Its attributes.
    """

    path: Path
    run: str
    phasebus: str
    host: str
    start_ns: int
    state: str
    step: str = ""
    kind: str = ""
    name: str = ""
    outcome: str = ""
    seconds: float | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> str:
        """The model that it started; "" for several, or none."""
        return str(self.attributes.get("model", ""))


def beginning_of(path: Path) -> RunBeginning:
    """Return the beginning of the run whose journal is at `path`.

    Raises:
        JournalError: The file cannot be read, is not a journal, or was written by a newer phasebus.
    """
    opened, root = _first_events(path, _read(path, _MAX_FIRST_BYTES)[0])
    if root is None:
        return RunBeginning(path=path, run=opened.run)
    return RunBeginning(path=path, run=opened.run, kind=root.kind, attributes=root.attributes)


def summarize(path: Path) -> RunSummary:
    """Return the summary of the journal at `path`, and of none of its run's members.

    Raises:
        JournalError: The file cannot be read, is not a journal, or was written by a newer phasebus.
    """
    content, tail = _read(path, _MAX_BYTES)
    opened, root = _first_events(path, content)
    closed = isinstance(_decoded(tail.rstrip(b"\n").rpartition(b"\n")[2]), JournalClosed)
    state = "closed" if closed else "running" if is_writer_alive(opened) else "died"
    about: dict[str, Any] = {
        "path": path,
        "run": opened.run,
        "phasebus": opened.phasebus,
        "host": opened.host,
        "start_ns": opened.time_ns,
        "state": state,
    }
    if root is None:
        return RunSummary(**about)
    end = _end_of(root.step, content)
    outcome, seconds = "unknown" if state == "closed" else state, None
    if isinstance(end, StepFinished):
        outcome, seconds = "finished", end.seconds
    elif isinstance(end, StepFailed):
        outcome, seconds = end.outcome, end.seconds
    return RunSummary(
        **about,
        step=root.step,
        kind=root.kind,
        name=root.name,
        outcome=outcome,
        seconds=seconds,
        attributes={**root.attributes, **(end.attributes if end is not None else {})},
    )


def _read(path: Path, most: int) -> tuple[bytes, bytes]:
    """Return the first `most` bytes of a file, and its last ones."""
    try:
        with os.fdopen(open_regular(path, os.O_RDONLY, follow=True), "rb") as file:
            content = file.read(most)
            file.seek(max(0, os.fstat(file.fileno()).st_size - MAX_LINE_BYTES))
            return content, file.read(MAX_LINE_BYTES)
    except OSError as error:
        raise JournalError(f"cannot read the journal {path}: {error.strerror}") from error


def _first_events(path: Path, content: bytes) -> tuple[JournalOpened, StepEvent | None]:
    """Return the first line's event, and that of the first step."""
    lines = _lines(content)
    try:
        opened = decode_line(next(lines, b""))
    except DecodeError as error:
        raise JournalError(f"{path} is not a journal that this phasebus can read: first line: {error}") from error
    if not isinstance(opened, JournalOpened):
        raise JournalError(f"{path} is not a journal of phasebus: its first line is not that of a journal")
    for _, line in zip(range(_MAX_FIRST_LINES), lines, strict=False):
        if isinstance(event := _decoded(line), StepEvent):
            return opened, event
    return opened, None


def _lines(content: bytes) -> Iterator[bytes]:
    """Yield the whole lines of `content`; a line is copied when it is needed."""
    start = 0
    while (end := content.find(b"\n", start)) >= 0:
        yield content[start:end]
        start = end + 1


def _end_of(step: str, content: bytes) -> StepEvent | None:
    """Return the event of the end of a step; None if it is not in `content`."""
    needle, at = f'"span": "{step}"'.encode(), len(content)
    while (at := content.rfind(needle, 0, at)) >= 0:
        end = content.find(b"\n", at)
        line = content[content.rfind(b"\n", 0, at) + 1 : end if end >= 0 else len(content)]
        event = _decoded(line)
        if isinstance(event, StepFinished | StepFailed) and event.step == step:
            return event
    return None


def _decoded(line: bytes) -> JournalEvent | None:
    try:
        return decode_line(line)
    except DecodeError:
        return None
