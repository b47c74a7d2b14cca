from __future__ import annotations

from pathlib import Path

import pytest

from phasebus.bus import StepFinished, StepStarted
from phasebus.telemetry import RunIdentity
from phasebus.telemetry.analysis.page_state import page_state
from phasebus.telemetry.journal import DecodeError, JournalWriter, decode, decode_lines, read_journal
from phasebus.telemetry.journal.format import MAX_LINE_BYTES
from phasebus.telemetry.redaction import MASK
from phasebus.telemetry.status import Status
from phasebus.telemetry.stuck import StuckStep, StuckSteps


def stuck(number: int = 1, **more: object) -> StuckStep:
    fields: dict[str, object] = {
        "step": f"{number:016x}",
        "name": "load weights",
        "process": "Worker_TP1",
        "pid": 42,
        "running_seconds": 75.0,
        "reason": "the process is stopped",
        "stacks": ('main thread:\n  File "a.py", line 1 in read',),
    }
    return StuckStep(**{**fields, **more})  # type: ignore[arg-type]


def test_headline_names_step_process_duration_and_reason() -> None:
    assert stuck(usual_seconds=9.0).headline() == (
        "load weights (Worker_TP1, process 42) is stuck after 1 min 15 s (usually 9 s): the process is stopped"
    )


def test_block_has_the_stack_and_the_last_lines_of_the_log() -> None:
    text = stuck(log=("first", "second"), sockets=("tcp 127.0.0.1:1 listening",)).block()
    assert text.splitlines()[1:] == [
        "  main thread:",
        '    File "a.py", line 1 in read',
        "  socket: tcp 127.0.0.1:1 listening",
        "  log: first",
        "  log: second",
        "  0 ms of CPU, 0 B read lately",
    ]


def test_secrets_and_control_characters_of_the_evidence_are_removed() -> None:
    step = stuck(log=("token=hf_abcdefghijklmnop", "\x1b[31mred"), reason="password: hunter22")
    assert step.log == (f"token={MASK}", "\\x1b[31mred")
    assert "hunter22" not in step.reason


def test_journal_keeps_stuck_steps_and_earlier_readers_skip_them(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    writer = JournalWriter(path, RunIdentity.fresh("n", {}))
    writer.write(StepStarted(step="a" * 16, kind="node", name="n"))
    written = StuckSteps(steps=(stuck(1), stuck(2, stacks=(), usual_seconds=3.0)))
    writer.write(written)
    writer.close()
    events, errors = decode_lines(path.read_bytes())
    assert not errors
    assert written in events
    assert b'"span"' not in path.read_bytes().splitlines()[2]  # what earlier readers decode as a step's event
    run = read_journal(path)
    assert [step.name for step in run.steps] == ["n"]
    assert run.stuck == (written,)


def test_page_of_a_run_that_died_shows_what_it_was_stuck_in(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    writer = JournalWriter(path, RunIdentity.fresh("n", {}))
    for number, name in ((1, "stuck"), (2, "goes on")):
        writer.write(StepStarted(step=f"{number:016x}", kind="phase", name=name))
    writer.write(StuckSteps(steps=(stuck(1), stuck(2))))
    writer.write(StepFinished(step=f"{2:016x}", kind="phase", name="goes on", seconds=1.0))
    writer.close()
    assert [step["step"] for step in page_state(read_journal(path))["stuck"]] == [f"{1:016x}"]


def test_line_with_all_evidence_fits_into_a_journal(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    writer = JournalWriter(path, RunIdentity.fresh("n", {}))
    texts = tuple("é" * 10_000 for _ in range(100))
    writer.write(StuckSteps(steps=tuple(stuck(n, stacks=texts, log=texts, sockets=texts) for n in range(9))))
    writer.close()
    assert max(map(len, path.read_bytes().splitlines())) < MAX_LINE_BYTES
    assert decode_lines(path.read_bytes())[1] == []


@pytest.mark.parametrize(
    "steps",
    [
        None,
        {},
        ["text"],
        [{"step": 1}],
        [{**stuck().plain(), "pid": -1}],
        [{**stuck().plain(), "running_seconds": "1"}],
    ],
)
def test_damaged_stuck_steps_are_rejected(steps: object) -> None:
    with pytest.raises(DecodeError):
        decode({"event": "StuckSteps", "time_ns": 1, "stuck": steps})


def test_status_names_stuck_steps_only_while_there_are_any() -> None:
    status = Status()
    status.set_stuck(StuckSteps(steps=(stuck(),)))
    assert status.describe()["stuck"] == [stuck().headline()]
    status.set_stuck(StuckSteps())
    assert "stuck" not in status.describe()
