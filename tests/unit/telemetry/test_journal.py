from __future__ import annotations

import json
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from phasebus.bus import PhaseEvent, StepFailed, StepFinished, StepStarted, phase_event
from phasebus.telemetry import RunIdentity
from phasebus.telemetry.journal import JournalError, JournalWriter, find_journal, journal_of, journal_path, read_journal
from phasebus.telemetry.journal.format import FORMAT

NODE, PHASE = "a" * 16, "b" * 16


@pytest.fixture
def identity() -> RunIdentity:
    return RunIdentity.fresh("node-1", {})


@pytest.fixture
def journal(identity: RunIdentity) -> Path:
    return journal_path(identity.run)


def write_start(journal: Path, identity: RunIdentity) -> JournalWriter:
    writer = JournalWriter(journal, identity)
    writer.write(StepStarted(step=NODE, kind="node", name="node-1", attributes={"model": "m"}))
    writer.write(StepStarted(step=PHASE, parent=NODE, kind="phase", name="download"))
    writer.write(phase_event("pre_download")())
    return writer


def test_what_is_written_is_read_back(journal: Path, identity: RunIdentity) -> None:
    writer = write_start(journal, identity)
    writer.write(StepFinished(step=PHASE, parent=NODE, kind="phase", name="download", seconds=1.5))
    writer.write(StepFinished(step=NODE, kind="node", name="node-1", seconds=2.5, attributes={"late": True}))
    writer.close()

    run = read_journal(journal)
    assert (run.run, run.node, run.trace, run.state) == (identity.run, "node-1", identity.trace, "closed")
    assert [(step.name, step.outcome, step.parent) for step in run.steps] == [
        ("node-1", "finished", None),
        ("download", "finished", NODE),
    ]
    assert run.root is not None
    assert run.root.attributes == {"model": "m", "late": True}
    assert [moment.phase for moment in run.moments] == ["pre_download"]


def test_every_line_carries_the_ids_and_both_clocks(journal: Path, identity: RunIdentity) -> None:
    write_start(journal, identity).close()
    for line in journal.read_text().splitlines():
        entry = json.loads(line)
        assert (entry["run"], entry["node"], entry["trace"]) == (identity.run, "node-1", identity.trace)
        assert entry["time_ns"] > 0
        assert entry["monotonic_ns"] > 0


def test_only_its_owner_may_read_it(journal: Path, identity: RunIdentity) -> None:
    write_start(journal, identity).close()
    assert stat.S_IMODE(journal.stat().st_mode) == 0o600


def test_secrets_do_not_reach_it(journal: Path, identity: RunIdentity) -> None:
    writer = JournalWriter(journal, identity)
    error = ValueError("https://host/f?X-Amz-Signature=hunter2secret")
    writer.write(StepStarted(step=NODE, kind="x", name="HF_TOKEN=hunter2secret", attributes={"token": "hunter2secret"}))
    writer.write(StepFailed(step=NODE, kind="x", name="x", seconds=1.0, outcome="failed", error=error))
    writer.close()
    assert "hunter2secret" not in journal.read_text()


def test_a_journal_that_is_still_being_written_is_read_as_far_as_it_goes(journal: Path, identity: RunIdentity) -> None:
    writer = write_start(journal, identity)
    run = read_journal(journal)
    assert run.state == "running"
    assert {step.outcome for step in run.steps} == {"running"}
    writer.close()


def test_what_ran_when_the_process_died_is_accounted_for(journal: Path, identity: RunIdentity) -> None:
    write_start(journal, identity)
    lines = journal.read_text().splitlines(keepends=True)
    lines[0] = json.dumps(json.loads(lines[0]) | {"process_created": 1.0}) + "\n"  # another process had this id
    journal.write_text("".join(lines))
    run = read_journal(journal)
    assert run.state == "died"
    assert [(step.outcome, step.error) for step in run.steps] == [("died", "its process died")] * 2


def test_a_journal_cut_off_in_the_middle_of_a_line_is_read_up_to_there(journal: Path, identity: RunIdentity) -> None:
    write_start(journal, identity).close()
    whole = journal.read_bytes()
    journal.write_bytes(whole[: whole.rindex(b"JournalClosed")])
    assert len(read_journal(journal).steps) == 2


@pytest.mark.parametrize("content", ["", "hello\n", '{"a": 1}\n', "[]\n", "no end of line"])
def test_a_file_that_is_no_journal_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text(content)
    with pytest.raises(JournalError, match=r"other\.jsonl is not a journal"):
        read_journal(path)


def test_a_newer_format_says_who_can_read_it(journal: Path, identity: RunIdentity) -> None:
    write_start(journal, identity).close()
    journal.write_text(journal.read_text().replace(f'"format": {FORMAT}', '"format": 99'))
    with pytest.raises(JournalError, match="wrote format 99, and this version reads up to"):
        read_journal(journal)


def test_a_journal_is_found_by_its_run_by_its_beginning_by_its_path_or_as_the_last(identity: RunIdentity) -> None:
    for run in ("20260101T000000-aaaa", "20260102T000000-bbbb", "20260102T000000-cccc"):
        JournalWriter(journal_path(run), identity).close()
    first = journal_path("20260101T000000-aaaa")
    assert find_journal() == journal_path("20260102T000000-cccc")
    assert find_journal("20260101T000000-aaaa") == find_journal("20260101") == find_journal(str(first)) == first
    with pytest.raises(JournalError, match="several runs begin with '20260102'"):
        find_journal("20260102")
    with pytest.raises(JournalError, match="no run 'x'"):
        find_journal("x")


def test_without_any_run_it_says_how_to_make_one() -> None:
    with pytest.raises(JournalError, match="phasebus demo"):
        find_journal()


def test_the_journals_of_a_runs_members_are_read_with_its_own_and_what_that_says_of_their_steps_holds(
    journal: Path, identity: RunIdentity
) -> None:
    member = identity.of_member("node-2", NODE)
    inner, phase = "c" * 16, "d" * 16
    lost = JournalWriter(journal_of(member), member)
    lost.write(StepStarted(step=inner, parent=NODE, kind="node", name="node-2"))
    lost.write(StepStarted(step=phase, parent=inner, kind="phase", name="download"))
    lost.write(StepFinished(step=phase, parent=inner, kind="phase", name="download", seconds=1.0))
    writer = write_start(journal, identity)
    writer.write(
        StepFailed(step=inner, parent=NODE, kind="node", name="x", seconds=1.0, outcome="died", error=OSError("lost"))
    )
    steps = {step.id: step for step in read_journal(journal).steps}
    assert (steps[inner].outcome, steps[inner].error, steps[inner].node) == ("died", "lost", "node-2")
    assert (steps[phase].outcome, steps[phase].parent) == ("finished", inner)
    assert find_journal() == journal


def test_a_folder_that_cannot_be_written_is_named_with_the_way_out(tmp_path: Path, identity: RunIdentity) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match=r"cannot create the journal .*: File exists\. Set PHASEBUS_STATE_DIR"):
        JournalWriter(tmp_path / "file" / "run.jsonl", identity)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evicted(PhaseEvent):
    phase: ClassVar[str] = "evicted"
    by: str


def test_what_a_phase_event_carries_beside_the_configuration_is_written(journal: Path, identity: RunIdentity) -> None:
    writer = JournalWriter(journal, identity)
    writer.write(Evicted(config={"large": 1}, by="the scheduler"))
    writer.close()
    _, line, _ = map(json.loads, journal.read_text().splitlines())
    assert (line["event"], line["phase"], line["by"]) == ("Evicted", "evicted", "the scheduler")
    assert "config" not in line
