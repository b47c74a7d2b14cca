"""Files in place of a journal. They are read or rejected, and every report and observer accepts what was read.

To try more inputs, those of an odd length pass to the reports only, those of an even length to the observers only, and every
other one of these to the metrics' text, which takes as long as all other outputs.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from phasebus.bus import StepEvent
from phasebus.printable import printable_text
from phasebus.telemetry.journal import JournalError, PhaseMoment, decode_lines, read_journal
from phasebus.telemetry.stuck import StuckStep, StuckSteps
from tests.support.journal_lines import begun, ended, line, progressed
from tests.support.outputs import Outputs, reports_of

_OPENED = line("JournalOpened", format=1, phasebus="1", host="h", pid=1, process_created=1.0)
_FILE = Path(tempfile.mkdtemp(prefix="phasebus-fuzz-")) / "run.jsonl"

_STUCK = StuckStep(
    step="b" * 16, name="load", process="w", pid=7, running_seconds=9.0, reason="waits", stacks=("main",)
).plain()

INSTRUMENTED = ["phasebus.telemetry.journal", "phasebus.telemetry.stuck"]
SEEDS = [
    _OPENED
    + begun("a" * 16, "node", "n", model="m", node="n")
    + line("StepStarted", span="b" * 16, parent="a" * 16, kind="engine_step", name="load", attributes={"process": "w"})
    + progressed("b" * 16, "engine_step", "load", 1, 2)
    + line("StuckSteps", stuck=[_STUCK])
    + ended("b" * 16, "engine_step", "load", "died")
    + line("PreDownload", phase="download", config=None, data={"x": [1, 2.5, "y", None]})
    + ended("a" * 16, "node", "n")
    + line("JournalClosed"),
    _OPENED + begun("a" * 16, "download", "m") + progressed("a" * 16, "download", "m", 0.5),
]
TOKENS = [
    *(f'"{name}": '.encode() for name in ("event", "span", "parent", "kind", "name", "attributes", "outcome", "error")),
    *(f'"{name}": '.encode() for name in ("time_ns", "done", "total", "unit", "seconds", "traced", "phase", "format")),
    *(f'"{name}": '.encode() for name in ("stuck", "pid", "process", "stacks", "log", "reason", "running_seconds")),
    b'"engine_step"', b'"cluster"', b'"callback"', b'"aaaaaaaaaaaaaaaa"', b'"bbbbbbbbbbbbbbbb"', b"1e999", b"-1", b"NaN",
    b"\\ud800", b"\\u001b", b"9223372036854775807", b"9223372036854775808", b"null", b"{}", b"[]", b"true",
]  # fmt: skip


def check(data: bytes) -> None:
    """Read the lines, and make the reports of the file or observe its events."""
    events, _ = decode_lines(data)
    for moment in (event for event in events if isinstance(event, PhaseMoment)):
        for text in (moment.event, moment.phase, *moment.fields, *map(str, moment.fields.values())):
            assert printable_text(text) == text
    for stuck in (event for event in events if isinstance(event, StuckSteps)):
        json.dumps(stuck.plain(), allow_nan=False).encode()
        for step in stuck.steps:
            assert printable_text(step.block()) == step.block()
            assert step.step.isprintable()
    if len(data) % 2:
        _check_reports(data)
    elif steps := [event for event in events if isinstance(event, StepEvent)]:
        outputs = Outputs(threads=False)
        outputs.observe(steps)
        for text in outputs.texts(metrics=len(data) % 4 == 0).values():
            text.encode()


def _check_reports(data: bytes) -> None:
    _FILE.write_bytes(data)
    try:
        run = read_journal(_FILE)
    except JournalError as error:
        str(error).encode()
        return
    for text in reports_of(run).values():
        text.encode()
