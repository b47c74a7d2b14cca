"""Decoding: a line of a journal becomes the event it records. This is the only place that reads the format.

A line may come from another machine or version, or be damaged, so decoding validates: what it returns has the types,
bounds and characters that a live bus guarantees. Everything that reads journals feeds the decoded events to the code that
handles live ones.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import islice
from typing import Any, Final

from pydantic_core import from_json

from phasebus.bus import (
    AttributeValue,
    StepEvent,
    StepFailed,
    StepFinished,
    StepProgress,
    StepStarted,
)
from phasebus.printable import bounded_text, printable_text, printable_value
from phasebus.telemetry.journal.events import (
    DecodeError,
    JournalClosed,
    JournalEvent,
    JournalOpened,
    PhaseMoment,
    RecordedError,
)
from phasebus.telemetry.journal.format import FOOTER, FORMAT, HEADER
from phasebus.telemetry.redaction import MAX_ATTRIBUTE_CHARACTERS, MAX_NAME_CHARACTERS
from phasebus.telemetry.stuck import StuckSteps

MAX_ATTRIBUTES: Final = 64
MAX_INTEGER: Final = 2**63 - 1
_MAX_KIND_CHARACTERS: Final = 100
_CLASSES_KEPT: Final = 256

_is_id = re.compile(r"[0-9a-f]{16}", re.ASCII).fullmatch
_is_class_name = re.compile(r"[A-Za-z_][\w.<>]{0,99}", re.ASCII).fullmatch
_TEXT_TYPES: Final = frozenset({str, bool})
_PLAIN_TYPES: Final = frozenset({str, bool, int, float})
_OUTCOMES: Final = frozenset({"failed", "cancelled", "timed_out", "died"})


def decode_lines(lines: bytes) -> tuple[list[JournalEvent], list[DecodeError]]:
    """Return the events of whole lines, in order, and an error for each line that has none."""
    events: list[JournalEvent] = []
    errors: list[DecodeError] = []
    plain = _is_plain_text(lines)
    for line in lines.rstrip(b"\n").split(b"\n") if lines else ():
        try:
            event = decode(_parse(line), plain=plain)
        except DecodeError as error:
            errors.append(error)
        else:
            if event is not None:
                events.append(event)
    return events, errors


def decode_line(line: bytes) -> JournalEvent | None:
    """Return the event of one line; see `decode`.

    Raises:
        DecodeError: The line does not have the format.
    """
    return decode(_parse(line), plain=_is_plain_text(line))


def decode(entry: object, *, plain: bool = False) -> JournalEvent | None:
    """Return the event of one parsed line; None if it is neither a step's, nor a phase's, nor the journal's own.

    Events of steps have a class with the original one's name, derived from `StepStarted`, `StepProgress`, `StepFinished`
    or `StepFailed`.

    Args:
        entry: The parsed line.
        plain: Whether every text in it is known to be printable and short.

    Raises:
        DecodeError: The entry does not have the format.
    """
    if not isinstance(entry, dict):
        raise DecodeError("not an object")
    event, time_ns = entry.get("event"), entry.get("time_ns")
    if not isinstance(event, str):
        raise DecodeError("'event' is not a name")
    if type(time_ns) is not int or not 0 <= time_ns <= MAX_INTEGER:
        raise DecodeError("'time_ns' is not a time")
    if "span" in entry:
        return _step(entry, event, time_ns, plain=plain)
    if event == HEADER:
        return _opened(entry, time_ns)
    if event == FOOTER:
        return JournalClosed(time_ns=time_ns)
    if event == StuckSteps.__name__ and "stuck" in entry:
        return _stuck(entry["stuck"], time_ns)
    if isinstance(entry.get("phase"), str):
        return _moment(entry, event, time_ns)
    return None


def _is_plain_text(lines: bytes) -> bool:
    """Return whether no text in `lines` needs a closer look: all of it is printable ASCII, and no line is long.

    JSON has raw control characters nowhere and escapes all others with a backslash, except for DEL.
    """
    return (
        lines.isascii()
        and b"\\" not in lines
        and b"\x7f" not in lines
        and max(map(len, lines.split(b"\n"))) <= MAX_NAME_CHARACTERS
    )


def _parse(line: bytes) -> Any:
    """Return what `line` has as JSON; pydantic's parser takes half the time of `json`, and bounds the depth."""
    try:
        return from_json(line, allow_inf_nan=False)
    except ValueError as error:
        raise DecodeError("not JSON") from error


def _step(entry: dict[str, Any], event: str, time_ns: int, *, plain: bool) -> StepEvent:
    step, parent, monotonic_ns = entry["span"], entry.get("parent"), entry.get("monotonic_ns", 0)
    if not (isinstance(step, str) and _is_id(step)):
        raise DecodeError("'span' is not the id of a step")
    if parent is not None and not (isinstance(parent, str) and _is_id(parent)):
        raise DecodeError("'parent' is not the id of a step")
    if type(monotonic_ns) is not int or not 0 <= monotonic_ns <= MAX_INTEGER:
        raise DecodeError("'monotonic_ns' is not a time")
    kind, name = entry.get("kind"), entry.get("name")
    if not plain or type(kind) is not str or len(kind) > _MAX_KIND_CHARACTERS or type(name) is not str:
        kind, name = _text(entry, "kind", _MAX_KIND_CHARACTERS), _text(entry, "name", MAX_NAME_CHARACTERS)
    base: Any = StepStarted
    more: dict[str, Any] = {}
    if "outcome" in entry:
        base = StepFinished if entry["outcome"] == "finished" else StepFailed
        more = {"seconds": _number(entry, "seconds"), **(_failure(entry) if base is StepFailed else {})}
    elif "done" in entry:
        base = StepProgress
        more = _progress(entry)
    decoded: StepEvent = _class(event, base)(
        step=step,
        parent=parent,
        kind=kind,
        name=name,
        attributes=_attributes(entry.get("attributes"), plain=plain),
        time_ns=time_ns,
        monotonic_ns=monotonic_ns,
        traced=entry.get("traced") is True,
        **more,
    )
    return decoded


def _progress(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "done": _number(entry, "done"),
        "total": None if entry.get("total") is None else _number(entry, "total"),
        "unit": _text(entry, "unit", _MAX_KIND_CHARACTERS) if "unit" in entry else "1",
    }


def _failure(entry: dict[str, Any]) -> dict[str, Any]:
    outcome, error = entry["outcome"], entry.get("error")
    if not (isinstance(outcome, str) and outcome in _OUTCOMES):
        raise DecodeError("'outcome' is not how a step can end")
    if not isinstance(error, dict):
        error = {}
    kind, message = error.get("type"), error.get("message")
    raised = _class(kind if isinstance(kind, str) else "", RecordedError)
    return {
        "outcome": outcome,
        "error": raised(_printable(message, MAX_ATTRIBUTE_CHARACTERS) if isinstance(message, str) else ""),
    }


def _opened(entry: dict[str, Any], time_ns: int) -> JournalOpened:
    version, pid = entry.get("format"), entry.get("pid")
    created, start = entry.get("process_created"), entry.get("process_start")
    if type(version) is not int:
        raise DecodeError("'format' is not a version")
    if version > FORMAT:
        writer = _printable(str(entry.get("phasebus")), _MAX_KIND_CHARACTERS)
        raise DecodeError(f"phasebus {writer} wrote format {version}, and this version reads up to {FORMAT}")
    return JournalOpened(
        run=_text(entry, "run", MAX_NAME_CHARACTERS),
        node=_text(entry, "node", MAX_NAME_CHARACTERS),
        trace=_text(entry, "trace", _MAX_KIND_CHARACTERS),
        time_ns=time_ns,
        format=version,
        phasebus=_text(entry, "phasebus", MAX_NAME_CHARACTERS) if "phasebus" in entry else "",
        host=_text(entry, "host", MAX_NAME_CHARACTERS) if "host" in entry else "",
        pid=pid if type(pid) is int and 0 < pid <= MAX_INTEGER else 0,
        process_created=float(created) if isinstance(created, float | int) and abs(created) <= MAX_INTEGER else None,
        process_start=start if isinstance(start, str) else None,
    )


_COMMON: Final = frozenset({"event", "run", "node", "trace", "time_ns", "monotonic_ns", "phase"})


def _moment(entry: dict[str, Any], event: str, time_ns: int) -> PhaseMoment:
    return PhaseMoment(
        phase=_text(entry, "phase", MAX_NAME_CHARACTERS),
        time_ns=time_ns,
        event=_printable(event, _MAX_KIND_CHARACTERS),
        fields=_attributes({key: value for key, value in entry.items() if key not in _COMMON}),
    )


def _stuck(steps: object, time_ns: int) -> StuckSteps:
    try:
        return StuckSteps.from_plain(steps, time_ns)
    except ValueError as error:
        raise DecodeError(str(error)) from error


def _text(entry: dict[str, Any], key: str, limit: int) -> str:
    value = entry.get(key)
    if not isinstance(value, str):
        raise DecodeError(f"{key!r} is not text")
    return value if len(value) <= limit and value.isprintable() else _printable(value, limit)


def _printable(text: str, limit: int) -> str:
    return bounded_text(printable_text(text), limit)


def _value(value: object) -> AttributeValue:
    printable = printable_value(value)
    return _printable(printable, MAX_ATTRIBUTE_CHARACTERS) if isinstance(printable, str) else printable


def _number(entry: dict[str, Any], key: str) -> float:
    """Return a number of at least 0 that fits into 64 bits."""
    value = entry.get(key)
    if (type(value) is not float and type(value) is not int) or not 0 <= value <= MAX_INTEGER:
        raise DecodeError(f"{key!r} is not a finite number of at least 0")
    return value


def _attributes(attributes: object, *, plain: bool = False) -> dict[str, AttributeValue]:
    """Return `attributes`, the excess ones left out, with names and values that are printable."""
    if attributes is None:
        return {}
    if not isinstance(attributes, dict):
        raise DecodeError("'attributes' is not an object")
    if plain and len(attributes) <= MAX_ATTRIBUTES and _are_plain(attributes):
        return attributes
    return {
        _printable(key, _MAX_KIND_CHARACTERS): _value(value)
        for key, value in islice(attributes.items(), MAX_ATTRIBUTES)
    }


def _are_plain(attributes: dict[str, Any]) -> bool:
    """Return whether the values of `attributes` are what `_value` would return, given printable, short text."""
    types = set(map(type, attributes.values()))
    if types <= _TEXT_TYPES:
        return True
    return types <= _PLAIN_TYPES and all(
        -MAX_INTEGER <= value <= MAX_INTEGER for value in attributes.values() if type(value) is not str
    )


@lru_cache(_CLASSES_KEPT)
def _class(name: str, base: Any) -> Any:
    """Return a class derived from `base` that is called `name`; `base` itself if that is no name of a class."""
    if name == base.__name__ or not _is_class_name(name):
        return base
    return type(name, (base,), {"__slots__": (), "__module__": __name__})
