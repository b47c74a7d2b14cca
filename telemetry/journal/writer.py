"""Writing a journal."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import psutil

from phasebus import __version__
from phasebus.bus import PhaseEvent, StepEvent, StepFailed, StepFinished, StepProgress
from phasebus.clock import now_ns
from phasebus.telemetry.files import create_folder, open_regular
from phasebus.telemetry.journal.decoder import MAX_ATTRIBUTES
from phasebus.telemetry.journal.format import FOOTER, FORMAT, HEADER, MAX_LINE_BYTES, JournalError
from phasebus.telemetry.journal.process_start import process_start
from phasebus.telemetry.redaction import printable_number, reason, redact_name, redact_value
from phasebus.telemetry.run import RunIdentity, host_name
from phasebus.telemetry.stuck import StuckSteps

_CLOSED: Final = -1


class JournalWriter:
    """Appends the events of one run to its file, which it creates readable by its owner alone.

    Args:
        path: The file; missing folders are created.
        identity: The run.

    Raises:
        JournalError: The file cannot be created, or there is something else than a file of this user at `path`.
    """

    def __init__(self, path: Path, identity: RunIdentity) -> None:
        self.path = path
        self._identity = identity
        try:
            create_folder(path.parent)
            self._descriptor = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, own=True)
        except OSError as error:
            raise _creation_failed(path, error.strerror or str(error)) from error
        self._size = 0
        self._has_links = os.fstat(self._descriptor).st_nlink > 0  # some file systems count none
        try:
            self._write(_header(identity))
        except OSError as error:
            with suppress(OSError):
                if not os.fstat(self._descriptor).st_size:
                    path.unlink()  # an empty file would be the last run
            os.close(self._descriptor)
            raise _creation_failed(path, error.strerror or str(error)) from error

    def write(self, event: object) -> None:
        """Append one event, free of secrets.

        Raises:
            OSError: The file cannot be written, for example because the disk is full, or was removed. Nothing of the event is
                in it then.
        """
        self._check_file()
        line: dict[str, Any] = {"event": type(event).__name__}
        if isinstance(event, StepEvent):
            line |= _step(event)
        elif isinstance(event, StuckSteps):  # without the key "span": earlier readers skip it
            line |= {"time_ns": event.time_ns, "stuck": event.plain()}
        else:
            if isinstance(event, PhaseEvent):
                line["phase"] = event.phase
            if is_dataclass(event):
                recorded = (each.name for each in fields(event) if each.name != "config")
                line |= {name: _plain(name, getattr(event, name)) for name in recorded}
        self._write(line)

    def close(self) -> None:
        """Record that the run was closed in order, and close the file. Later events are errors.

        Raises:
            OSError: The file cannot be written; it is closed.
        """
        try:
            self._write({"event": FOOTER})
        finally:
            descriptor, self._descriptor = self._descriptor, _CLOSED  # the number may become another file's
            os.close(descriptor)

    def _check_file(self) -> None:
        """Write the first line again if the file was truncated, as some programs that rotate files do it.

        Raises:
            OSError: It was removed, or the line cannot be written.
        """
        status = os.fstat(self._descriptor)
        if self._has_links and status.st_nlink == 0:
            raise OSError(errno.ENOENT, "it was removed", str(self.path))
        if status.st_size < self._size:
            self._size = status.st_size
            if status.st_size:
                self._append(b"\n")  # ends a line that was cut
            self._write(_header(self._identity))

    def _write(self, line: Mapping[str, Any]) -> None:
        identity = self._identity
        whole = {
            "event": line["event"],
            "run": identity.run,
            "node": identity.node,
            "trace": identity.trace,
            "time_ns": now_ns(),
            "monotonic_ns": time.monotonic_ns(),
            **line,
        }
        encoded = _encode(whole)
        if len(encoded) > MAX_LINE_BYTES and "attributes" in whole:
            encoded = _encode({**whole, "attributes": {"truncated": True}})
        self._append(encoded)

    def _append(self, encoded: bytes) -> None:
        written = os.write(self._descriptor, encoded)
        if written < len(encoded):  # the disk is full; half a line would make the next one unreadable
            os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        self._size += written


def _creation_failed(path: Path, why: str) -> JournalError:
    return JournalError(
        f"cannot create the journal {path}: {why}. Set PHASEBUS_STATE_DIR to a folder that can be written"
    )


def _header(identity: RunIdentity) -> dict[str, Any]:
    try:
        created: float | None = psutil.Process().create_time()
    except psutil.Error:  # without /proc
        created = None
    return {
        "event": HEADER,
        "format": FORMAT,
        "phasebus": __version__,
        "host": host_name(),
        "pid": os.getpid(),
        "process_created": created,
        "process_start": process_start(os.getpid()),
        "parent": identity.parent,
    }


def _encode(line: Mapping[str, Any]) -> bytes:
    return json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _step(event: StepEvent) -> dict[str, Any]:
    line: dict[str, Any] = {
        "time_ns": event.time_ns,
        "monotonic_ns": event.monotonic_ns,
        "span": event.step,
        "parent": event.parent,
        "kind": redact_name(event.kind),
        "name": redact_name(event.name),
        "attributes": {
            redact_name(key): redact_value(key, value)
            for key, value in islice(event.attributes.items(), MAX_ATTRIBUTES)
        },
    }
    if event.traced:
        line["traced"] = True
    if isinstance(event, StepProgress):
        total = None if event.total is None else _number(event.total)
        line |= {"done": _number(event.done), "total": total, "unit": redact_name(event.unit)}
    elif isinstance(event, StepFinished):
        line |= {"seconds": _number(event.seconds), "outcome": "finished"}
    elif isinstance(event, StepFailed):
        line |= {
            "seconds": _number(event.seconds),
            "outcome": event.outcome,
            "error": {"type": type(event.error).__qualname__, "message": reason(event)},
        }
    return line


def _number(value: float) -> float:
    """Return `value`; 0 if it is not a finite number of at least 0."""
    return max(0, printable_number(value) or 0)


def _plain(key: str, value: object) -> object:
    """Return the JSON value of a field."""
    return None if value is None else redact_value(key, value)
