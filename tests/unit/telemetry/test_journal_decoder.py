from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from phasebus.bus import (
    AttributeValue,
    StepEvent,
    StepFailed,
    StepFinished,
    StepProgress,
    StepStarted,
    phase_event,
)
from phasebus.telemetry import RunIdentity
from phasebus.telemetry.journal import (
    DecodeError,
    JournalClosed,
    JournalOpened,
    JournalWriter,
    PhaseMoment,
    decode,
    decode_line,
    decode_lines,
    journal_path,
)
from phasebus.telemetry.journal.decoder import MAX_INTEGER
from phasebus.telemetry.redaction import reason
from tests.support.journal_lines import begun, ended, progressed

STEP, PARENT = "a" * 16, "b" * 16
IDENTITY = RunIdentity.fresh("node-1", {})


class EngineStepFailed(StepFailed):
    """A class that the room of telemetry cannot import."""


class OutOfMemoryError(Exception):
    """An error likewise."""


EVENTS: list[StepEvent] = [
    StepStarted(step=STEP, parent=PARENT, kind="phase", name="download", attributes={"a": 1, "b": "x", "c": True}),
    StepStarted(step=STEP, kind="phase", name='é"\\', traced=True, attributes={"float": 0.25, "t": "a\t\n"}),
    StepProgress(step=STEP, kind="download", name="m", done=1.5, total=None, unit="By"),
    StepProgress(step=STEP, kind="download", name="m", done=1, total=2),
    StepFinished(step=STEP, kind="download", name="m", seconds=1.25),
]


def written(tmp_path: Path, *events: object) -> bytes:
    path = journal_path(f"{tmp_path.name}")
    writer = JournalWriter(path, IDENTITY)
    for event in events:
        writer.write(event)
    writer.close()
    return path.read_bytes()


@pytest.mark.parametrize("event", EVENTS)
def test_a_step_event_that_was_written_is_decoded_as_it_was(event: StepEvent, tmp_path: Path) -> None:
    (opened, decoded, closed), errors = decode_lines(written(tmp_path, event))
    assert (decoded, errors) == (event, [])
    assert isinstance(opened, JournalOpened)
    assert (opened.run, opened.node, opened.trace) == (IDENTITY.run, "node-1", IDENTITY.trace)
    assert isinstance(closed, JournalClosed)


def test_a_failure_keeps_the_names_of_its_class_and_of_its_errors_class(tmp_path: Path) -> None:
    error = OutOfMemoryError("no room")
    event = EngineStepFailed(step=STEP, kind="engine_step", name="x", seconds=1, outcome="failed", error=error)
    (_, decoded, _), _ = decode_lines(written(tmp_path, event))
    assert isinstance(decoded, StepFailed)
    assert type(decoded).__name__ == "EngineStepFailed"
    assert type(decoded.error).__qualname__ == "OutOfMemoryError"
    assert reason(decoded) == "no room"


def test_a_phase_event_is_decoded_with_its_fields(tmp_path: Path) -> None:
    (_, decoded, _), _ = decode_lines(written(tmp_path, phase_event("pre_download")()))
    assert isinstance(decoded, PhaseMoment)
    assert (decoded.phase, decoded.event) == ("pre_download", "PreDownload")


def test_a_phase_event_of_a_foreign_journal_is_printable() -> None:
    entry = {
        "event": "Pre\x1b",
        "phase": "down\u202e",
        "time_ns": 1,
        "x\x07": "\x1b]0;y\x07",
        "l": ["\x1b"],
        "n": 2**70,
    }
    decoded = decode(entry)
    assert isinstance(decoded, PhaseMoment)
    texts = [decoded.event, decoded.phase, *decoded.fields, *map(str, decoded.fields.values())]
    assert all(text.isprintable() for text in texts)


def test_an_event_of_another_sort_is_no_error_and_no_event() -> None:
    assert decode({"event": "Other", "time_ns": 1}) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"event": 5}, "'event'"),
        ({"time_ns": "now"}, "'time_ns'"),
        ({"time_ns": -1}, "'time_ns'"),
        ({"time_ns": 2**70}, "'time_ns'"),
        ({"time_ns": True}, "'time_ns'"),
        ({"monotonic_ns": 0.5}, "'monotonic_ns'"),
        ({"span": None}, "'span'"),
        ({"span": "A" * 16}, "'span'"),
        ({"span": "a" * 16 + "\n"}, "'span'"),
        ({"span": "\uff11" * 16}, "'span'"),
        ({"parent": 5}, "'parent'"),
        ({"kind": None}, "'kind'"),
        ({"name": ["x"]}, "'name'"),
        ({"attributes": "x"}, "'attributes'"),
        ({"outcome": "finished"}, "'seconds'"),
        ({"outcome": "finished", "seconds": True}, "'seconds'"),
        ({"outcome": None, "seconds": 1}, "'outcome'"),
        ({"outcome": {"failed": 1}, "seconds": 1}, "'outcome'"),
        ({"done": None}, "'done'"),
        ({"done": 1, "total": "2"}, "'total'"),
    ],
)
@pytest.mark.parametrize("plain", [False, True])
def test_a_wrong_field_is_rejected_by_its_name(changes: dict[str, Any], message: str, *, plain: bool) -> None:
    entry = json.loads(begun(STEP, "phase", "x"))
    with pytest.raises(DecodeError, match=message):
        decode({**entry, **changes}, plain=plain)


@pytest.mark.parametrize("content", [b"", b"hello", b"[]", b"5", b"null", b'{"a": 1}', b"[" * 5_000, b"1" * 5_000])
def test_a_line_that_is_no_event_is_rejected(content: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_line(content)


def test_lines_after_a_rejected_one_are_decoded() -> None:
    events, errors = decode_lines(begun(STEP, "phase", "x") + b"\nhello\n" + ended(STEP, "phase", "x"))
    assert [type(event) for event in events] == [StepStarted, StepFinished]
    assert [str(error) for error in errors] == ["not JSON", "not JSON"]


def test_unprintable_text_and_excess_attributes_are_made_printable_and_bounded() -> None:
    line = begun(STEP, "k" * 500, "n\x1b[2J\u202e" + "n" * 5_000, deep={"a": [[[]]]}, many="x" * 9_000, none=None)
    event = decode_line(line)
    assert isinstance(event, StepEvent)
    assert len(event.kind) <= 100
    assert len(event.name) <= 500
    assert event.name.startswith("n\\x1b[2J\\u202e")
    assert event.attributes["deep"] == "{'a': [[[]]]}"
    assert len(str(event.attributes["many"])) <= 8_192
    assert event.attributes["none"] == "None"
    many = decode_line(begun(STEP, "k", "n", **{f"a{number}": number for number in range(500)}))
    assert isinstance(many, StepEvent)
    assert len(many.attributes) == 64


def test_text_outside_ascii_that_is_printable_stays() -> None:
    line = json.dumps(json.loads(begun(STEP, "phase", "Größe 数", model="é")), ensure_ascii=False).encode()
    event = decode_line(line)
    assert isinstance(event, StepEvent)
    assert (event.name, event.attributes["model"]) == ("Größe 数", "é")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
FIELDS = st.sampled_from(
    ["event", "time_ns", "monotonic_ns", "span", "parent", "kind", "name", "attributes", "outcome", "seconds", "done"]
)
ENTRIES = st.sampled_from([begun(STEP, "p", "x"), progressed(STEP, "p", "x", 1, 2), ended(STEP, "p", "x", "failed")])


@example(begun(STEP, "p", "x"), {"attributes": {"large": 2.0**63}})
@given(ENTRIES, st.dictionaries(FIELDS | st.sampled_from(["error", "total", "unit", "phase", "format"]), JSON))
def test_whatever_a_line_has_it_is_rejected_or_decoded_to_bounded_printable_values(
    line: bytes, changes: dict[str, Any]
) -> None:
    whole = json.dumps({**json.loads(line), **changes}).encode() + b"\n"
    events, errors = decode_lines(whole)
    assert len(events) + len(errors) <= 1
    for event in events:
        if isinstance(event, StepEvent):
            texts = [event.kind, event.name, *event.attributes, *map(str, event.attributes.values())]
            "".join(texts).encode()
            assert max(map(len, texts)) <= 8_192
            assert all(_is_bounded(value) for value in event.attributes.values())
            assert 0 <= event.time_ns <= MAX_INTEGER
        if isinstance(event, StepFailed):
            reason(event).encode()


@given(st.binary(max_size=400))
def test_arbitrary_bytes_never_raise_anything_but_decode_errors(content: bytes) -> None:
    events, errors = decode_lines(content)
    assert len(events) + len(errors) <= content.count(b"\n") + 1


def _is_bounded(value: AttributeValue) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str) or -MAX_INTEGER <= value <= MAX_INTEGER
