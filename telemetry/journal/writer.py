"""Writing a journal."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TextIO

import psutil

from phasebus import __version__
from phasebus.bus import PhaseEvent, StepEvent, StepFailed, StepFinished, StepProgress
from phasebus.telemetry.journal.format import FOOTER, FORMAT, HEADER, JournalError
from phasebus.telemetry.redaction import reason, redact, redact_value
from phasebus.telemetry.run import RunIdentity


class JournalWriter:
    """Appends the events of one run to its file, which it creates readable by its owner alone.

    Args:
        path: The file; its folder is made where it is not there.
        identity: The run.

    Raises:
        JournalError: The file cannot be created.
    """

    def __init__(self, path: Path, identity: RunIdentity) -> None:
        self._identity = identity
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, mode=0o600)
        except OSError as error:
            raise JournalError(
                f"the journal {path} cannot be created: {error.strerror}; "
                "set PHASEBUS_STATE_DIR to a folder that can be written"
            ) from error
        self._file: TextIO = os.fdopen(descriptor, "w", encoding="utf-8")
        process = psutil.Process()
        self._write(
            {
                "event": HEADER,
                "format": FORMAT,
                "phasebus": __version__,
                "host": platform.node(),
                "pid": process.pid,
                "process_created": process.create_time(),
                "parent": identity.parent,
            }
        )

    def write(self, event: object) -> None:
        """Append one event, free of secrets.

        Raises:
            OSError: The file cannot be written, say because the disk is full.
        """
        line: dict[str, Any] = {"event": type(event).__name__}
        if isinstance(event, StepEvent):
            line |= _step(event)
        else:
            if isinstance(event, PhaseEvent):
                line["phase"] = event.phase
            if is_dataclass(event):
                told = (each.name for each in fields(event) if each.name != "config")
                line |= {name: _plain(name, getattr(event, name)) for name in told}
        self._write(line)

    def close(self) -> None:
        """Write that the run was closed in order, and close the file."""
        self._write({"event": FOOTER})
        self._file.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        identity = self._identity
        whole = {
            "event": line["event"],
            "run": identity.run,
            "node": identity.node,
            "trace": identity.trace,
            "time_ns": time.time_ns(),
            "monotonic_ns": time.monotonic_ns(),
            **line,
        }
        self._file.write(json.dumps(whole, ensure_ascii=False) + "\n")
        self._file.flush()


def _step(event: StepEvent) -> dict[str, Any]:
    line: dict[str, Any] = {
        "time_ns": event.time_ns,
        "monotonic_ns": event.monotonic_ns,
        "span": event.step,
        "parent": event.parent,
        "kind": event.kind,
        "name": redact(event.name),
        "attributes": {key: redact_value(key, value) for key, value in event.attributes.items()},
    }
    if event.traced:
        line["traced"] = True
    if isinstance(event, StepProgress):
        line |= {"done": event.done, "total": event.total, "unit": event.unit}
    elif isinstance(event, StepFinished):
        line |= {"seconds": event.seconds, "outcome": "finished"}
    elif isinstance(event, StepFailed):
        line |= {
            "seconds": event.seconds,
            "outcome": event.outcome,
            "error": {"type": type(event.error).__qualname__, "message": reason(event)},
        }
    return line


def _plain(key: str, value: object) -> object:
    """Return a field's value as JSON can say it."""
    if value is None or isinstance(value, str | int | float | bool):
        return redact_value(key, value)
    return redact(repr(value))
