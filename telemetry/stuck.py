"""Steps that are stuck: which ones, why, and the evidence. On the page, in the journal, on spans and in logs alike."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final, Self

from phasebus.printable import bounded_text
from phasebus.telemetry.formatting import format_duration, format_quantity
from phasebus.telemetry.redaction import redact, redact_name

MAX_STEPS: Final = 3
"""The evidence travels with every change of the page, and fits into one line of a journal."""

_MAX_LINES: Final = {"stacks": 8, "log": 10, "sockets": 10}
_MAX_CHARACTERS: Final = {"stacks": 2000, "log": 300, "sockets": 200}
_MAX_REASON: Final = 600
_SHOWN_FRAMES: Final = 6
_SHOWN_LINES: Final = 4
_MAX_NUMBER: Final = 2.0**53


@dataclass(frozen=True, slots=True, kw_only=True)
class StuckStep:
    """A step that makes no progress, and what is known of its process. Texts are redacted and printable.

    Attributes:
        step: The id of the step.
        name: Its name, as in titles.
        process: The name of its process.
        pid: The id of that process; 0 if unknown.
        running_seconds: How long it has run.
        usual_seconds: Its usual duration; None if unknown.
        reason: Why it is stuck, or what it waits for.
        stacks: The Python stacks of the process, a text for each thread, the main thread first.
        log: The last lines of its output.
        sockets: Its open sockets and their queues.
        cpu_seconds: The CPU time that the process has used lately.
        read_bytes: The number of bytes that it has read lately.
    """

    step: str
    name: str
    process: str
    pid: int
    running_seconds: float
    usual_seconds: float | None = None
    reason: str
    stacks: Sequence[str] = ()
    log: Sequence[str] = ()
    sockets: Sequence[str] = ()
    cpu_seconds: float = 0.0
    read_bytes: int = 0

    def __post_init__(self) -> None:
        for name in ("step", "name", "process"):
            object.__setattr__(self, name, redact_name(getattr(self, name)))
        object.__setattr__(self, "reason", _text(self.reason, _MAX_REASON))
        for name, limit in _MAX_LINES.items():
            texts = getattr(self, name)[:limit] if name != "log" else getattr(self, name)[-limit:]
            object.__setattr__(self, name, tuple(_text(each, _MAX_CHARACTERS[name]) for each in texts))

    def plain(self) -> dict[str, Any]:
        """Return it as JSON data."""
        plain = asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}

    @classmethod
    def from_plain(cls, plain: object) -> Self:
        """Return the step that JSON data from a journal describes, with bounded texts and numbers.

        Raises:
            ValueError: The data do not have the form of `plain`.
        """
        if not isinstance(plain, Mapping):
            raise ValueError("a stuck step is not an object")  # noqa: TRY004  # it is about data
        checked: dict[str, Any] = {}
        for each in fields(cls):
            value: Any = plain.get(each.name)
            if each.name in _MAX_LINES:
                checked[each.name] = _lines(value)
            elif each.name in ("step", "name", "process", "reason"):
                if not isinstance(value, str):
                    raise ValueError(f"{each.name!r} of a stuck step is not text")
                checked[each.name] = value
            elif each.name == "usual_seconds" and value is None:
                checked[each.name] = None
            elif type(value) not in (int, float) or not 0 <= value <= _MAX_NUMBER:
                raise ValueError(f"{each.name!r} of a stuck step is not a number of at least 0")
            else:
                checked[each.name] = int(value) if each.name in ("pid", "read_bytes") else value
        return cls(**checked)

    def headline(self) -> str:
        """Return the step, its process and the reason on one line."""
        where = self.process + (f", process {self.pid}" if self.pid else "")
        usual = "" if self.usual_seconds is None else f" (usually {format_duration(self.usual_seconds)})"
        return f"{self.name} ({where}) is stuck after {format_duration(self.running_seconds)}{usual}: {self.reason}"

    def block(self) -> str:
        """Return the headline and the most useful evidence, indented, for a terminal or a log."""
        lines = [self.headline()]
        if self.stacks:
            head, *frames = self.stacks[0].splitlines()
            lines += [f"  {head}", *(f"    {frame.strip()}" for frame in frames[:_SHOWN_FRAMES])]
        lines += [f"  socket: {each}" for each in self.sockets[:_SHOWN_LINES]]
        lines += [f"  log: {each}" for each in self.log[-_SHOWN_LINES:]]
        used = f"{format_duration(self.cpu_seconds)} of CPU, {format_quantity(self.read_bytes, 'By')} read lately"
        return "\n".join([*lines, f"  {used}"])


@dataclass(frozen=True, slots=True, kw_only=True)
class StuckSteps:
    """Recorded when the steps that are stuck have changed. It is no `StepEvent`: it is neither start nor end of a step.

    Attributes:
        steps: The stuck steps, the one that the others wait for first; none if the start goes on.
        time_ns: When, in nanoseconds since the epoch.
    """

    steps: Sequence[StuckStep] = field(default=())
    time_ns: int = field(default_factory=time.time_ns)

    def plain(self) -> list[dict[str, Any]]:
        """Return the first steps as JSON data: all evidence of the first one, the main thread's stack of the others."""
        brief = [replace(step, stacks=step.stacks[:1], log=(), sockets=()) for step in self.steps[1:MAX_STEPS]]
        return [step.plain() for step in (*self.steps[:1], *brief)]

    @classmethod
    def from_plain(cls, steps: object, time_ns: int) -> Self:
        """Return the event that JSON data from a journal describe.

        Raises:
            ValueError: The data do not have the form of `plain`.
        """
        if not isinstance(steps, list):
            raise ValueError("the stuck steps are not a list")  # noqa: TRY004  # it is about data
        return cls(steps=tuple(StuckStep.from_plain(each) for each in steps[:MAX_STEPS]), time_ns=time_ns)


def _text(text: str, limit: int) -> str:
    return bounded_text(redact(text[: 4 * limit]), limit)


def _lines(lines: object) -> Sequence[str]:
    return tuple(each for each in lines if isinstance(each, str)) if isinstance(lines, list) else ()
