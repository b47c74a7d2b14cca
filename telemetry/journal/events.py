"""The events of a journal other than those of steps, and the errors of decoding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from phasebus.bus import AttributeValue, PhasebusError, StepEvent
from phasebus.telemetry.journal.format import JournalError
from phasebus.telemetry.stuck import StuckSteps


class DecodeError(JournalError):
    """Raised when a line of a journal does not have the format."""


class RecordedError(PhasebusError):
    """The error of a recorded step; its class has the name of the original one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalOpened:
    """The first line: the format of the file, and the process that wrote it.

    Attributes:
        run: The run's id.
        node: The node's name.
        trace: The trace id.
        time_ns: When the journal was opened, in nanoseconds since the epoch.
        format: The version of the format.
        phasebus: The version of phasebus that wrote it.
        host: The name of the machine.
        pid: The process id.
        process_created: When that process was created, in seconds since the epoch; None if not recorded.
        process_start: When it was started, as `process_start` returns it; None if not recorded.
    """

    run: str
    node: str
    trace: str
    time_ns: int
    format: int
    phasebus: str = ""
    host: str = ""
    pid: int = 0
    process_created: float | None = None
    process_start: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalClosed:
    """The last line of a journal that was closed in order.

    Attributes:
        time_ns: When, in nanoseconds since the epoch.
    """

    time_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseMoment:
    """A phase event: the moment at which callbacks were called.

    Attributes:
        phase: The name of the phase.
        time_ns: When, in nanoseconds since the epoch.
        event: The name of the event's class.
        fields: Its other fields.
    """

    phase: str
    time_ns: int
    event: str = ""
    fields: Mapping[str, AttributeValue] = field(default_factory=dict)


JournalEvent = StepEvent | PhaseMoment | StuckSteps | JournalOpened | JournalClosed
