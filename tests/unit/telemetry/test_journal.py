from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest

from phasebus.bus import PhaseEvent, StepFailed, StepFinished, StepProgress, StepStarted, phase_event
from phasebus.observers import JournalObserver
from phasebus.telemetry import RunIdentity
from phasebus.telemetry.journal import JournalError, JournalWriter, find_journal, journal_of, journal_path, read_journal
from phasebus.telemetry.journal.format import FORMAT, MAX_LINE_BYTES
from phasebus.telemetry.journal.process_start import process_start
from tests.support.foreign_files import give_away

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


def test_a_journal_that_was_written_is_read_back(journal: Path, identity: RunIdentity) -> None:
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


def test_journal_is_written_without_proc(journal: Path, identity: RunIdentity, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(pid: int | None = None) -> None:
        raise psutil.NoSuchProcess(pid or os.getpid())

    monkeypatch.setattr(psutil, "Process", fail)
    write_start(journal, identity).close()
    assert json.loads(journal.read_bytes().splitlines()[0])["process_created"] is None
    assert read_journal(journal).run == identity.run


def test_every_line_carries_the_ids_and_both_clocks(journal: Path, identity: RunIdentity) -> None:
    write_start(journal, identity).close()
    for line in journal.read_text().splitlines():
        entry = json.loads(line)
        assert (entry["run"], entry["node"], entry["trace"]) == (identity.run, "node-1", identity.trace)
        assert entry["time_ns"] > 0
        assert entry["monotonic_ns"] > 0


def test_a_journal_is_readable_by_its_owner_alone(journal: Path, identity: RunIdentity) -> None:
    write_start(journal, identity).close()
    assert stat.S_IMODE(journal.stat().st_mode) == 0o600


def test_a_journal_contains_no_secrets(journal: Path, identity: RunIdentity) -> None:
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


@pytest.mark.parametrize(
    "created",
    [
        {"process_start": "4a6f5b2e-0000-4000-8000-000000000000 1"},
        {"process_start": None, "process_created": 1.0},  # as phasebus 0.1 wrote it
        {"process_start": 1, "process_created": None},
    ],
)
def test_steps_that_ran_when_the_process_died_have_the_outcome_died(
    journal: Path, identity: RunIdentity, created: dict[str, object]
) -> None:
    write_start(journal, identity)
    change_header(journal, **created)  # another process had this id
    run = read_journal(journal)
    assert run.state == "died"
    assert [(step.outcome, step.error) for step in run.steps] == [("died", "its process died")] * 2


@pytest.mark.skipif(process_start(os.getpid()) is None, reason="the system has no /proc")
def test_process_that_has_ended_and_is_not_waited_for_has_no_start() -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert process_start(process.pid) is None


@pytest.mark.skipif(process_start(os.getpid()) is None, reason="the system has no /proc")
def test_process_whose_clock_was_set_since_is_still_running(journal: Path, identity: RunIdentity) -> None:
    writer = write_start(journal, identity)
    change_header(journal, process_created=psutil.Process().create_time() - 3600)
    assert read_journal(journal).state == "running"
    writer.close()


def change_header(journal: Path, **fields: object) -> None:
    lines = journal.read_text().splitlines(keepends=True)
    lines[0] = json.dumps(json.loads(lines[0]) | fields) + "\n"
    journal.write_text("".join(lines))


def test_a_journal_cut_off_in_the_middle_of_a_line_is_read_up_to_there(journal: Path, identity: RunIdentity) -> None:
    write_start(journal, identity).close()
    whole = journal.read_bytes()
    journal.write_bytes(whole[: whole.rindex(b"JournalClosed")])
    assert len(read_journal(journal).steps) == 2


@pytest.mark.parametrize("content", ["", "hello\n", '{"a": 1}\n', "[]\n", "no end of line"])
def test_a_file_that_is_not_a_journal_is_rejected_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text(content)
    with pytest.raises(JournalError, match=r"other\.jsonl is not a journal"):
        read_journal(path)


def test_a_newer_format_is_rejected_with_the_version_that_wrote_it(journal: Path, identity: RunIdentity) -> None:
    write_start(journal, identity).close()
    journal.write_text(journal.read_text().replace(f'"format": {FORMAT}', '"format": 99'))
    with pytest.raises(JournalError, match="wrote format 99, and this version reads up to"):
        read_journal(journal)


def test_a_journal_is_found_by_run_by_prefix_by_path_or_as_the_last(identity: RunIdentity) -> None:
    for run in ("20260101T000000-aaaa", "20260102T000000-bbbb", "20260102T000000-cccc"):
        JournalWriter(journal_path(run), identity).close()
    first = journal_path("20260101T000000-aaaa")
    assert find_journal() == journal_path("20260102T000000-cccc")
    assert find_journal("20260101T000000-aaaa") == find_journal("20260101") == find_journal(str(first)) == first
    with pytest.raises(JournalError, match="several runs begin with '20260102'"):
        find_journal("20260102")
    with pytest.raises(JournalError, match="no run 'x'"):
        find_journal("x")


def test_without_any_run_the_error_names_the_commands_that_make_one() -> None:
    with pytest.raises(JournalError, match="phasebus demo"):
        find_journal()


def test_the_runs_own_journal_overrides_those_of_its_members(journal: Path, identity: RunIdentity) -> None:
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


@pytest.mark.parametrize("ahead", [30.0, -30.0])
def test_times_of_a_member_are_moved_to_the_clock_of_the_run(
    journal: Path, identity: RunIdentity, ahead: float
) -> None:
    shift, member = int(ahead * 1e9), identity.of_member("node-2", NODE)
    began: dict[str, Any] = {"kind": "phase", "name": "download", "parent": NODE}
    other = JournalWriter(journal_of(member), member)
    other.write(StepStarted(step="c" * 16, **began, time_ns=100 * 10**9 + shift))
    other.write(StepFinished(step="c" * 16, **began, time_ns=104 * 10**9 + shift, seconds=4.0))
    other.write(StepStarted(step="d" * 16, **began, time_ns=104 * 10**9 + shift))
    writer = write_start(journal, identity)
    process: dict[str, Any] = {"step": "e" * 16, "kind": "ray", "name": "start_node_actor", "parent": NODE}
    writer.write(StepStarted(**process, attributes={"member": "node-2"}))
    measured: dict[str, Any] = {"member": "node-2", "clock_offset_seconds": ahead}
    writer.write(StepFinished(**process, seconds=1.0, attributes=measured))
    lost: dict[str, Any] = {"step": "d" * 16, **began, "time_ns": 110 * 10**9, "seconds": 6.0, "outcome": "died"}
    writer.write(StepFailed(**lost, error=OSError("lost")))  # by the clock of the run
    steps = {step.id: step for step in read_journal(journal).steps}
    assert (steps["c" * 16].start_ns, steps["c" * 16].end_ns) == (100 * 10**9, 104 * 10**9)
    assert (steps["d" * 16].start_ns, steps["d" * 16].end_ns) == (104 * 10**9, 110 * 10**9)


@pytest.mark.parametrize("offset", [1e300, -1e300, 3e9, True, "30", 2**62])
def test_any_clock_offset_in_a_journal_leaves_it_readable(
    journal: Path, identity: RunIdentity, offset: float | str
) -> None:
    member = identity.of_member("node-2", NODE)
    JournalWriter(journal_of(member), member).write(StepStarted(step="c" * 16, kind="phase", name="download"))
    attributes = {"member": "node-2", "clock_offset_seconds": offset}
    write_start(journal, identity).write(StepStarted(step="e" * 16, kind="ray", name="x", attributes=attributes))
    assert all(step.start_ns >= 0 for step in read_journal(journal).steps)


def test_a_folder_that_cannot_be_written_is_named_with_the_remedy(tmp_path: Path, identity: RunIdentity) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match=r"cannot create the journal .*: File exists\. Set PHASEBUS_STATE_DIR"):
        JournalWriter(tmp_path / "file" / "run.jsonl", identity)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evicted(PhaseEvent):
    phase: ClassVar[str] = "evicted"
    by: str


def test_the_fields_of_a_phase_event_are_written_except_the_configuration(journal: Path, identity: RunIdentity) -> None:
    writer = JournalWriter(journal, identity)
    writer.write(Evicted(config={"large": 1}, by="the scheduler"))
    writer.close()
    _, line, _ = map(json.loads, journal.read_text().splitlines())
    assert (line["event"], line["phase"], line["by"]) == ("Evicted", "evicted", "the scheduler")
    assert "config" not in line


def test_a_journal_does_not_follow_a_symlink(journal: Path, identity: RunIdentity, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("untouched")
    journal.parent.mkdir(parents=True)
    journal.symlink_to(target)
    with pytest.raises(JournalError, match="cannot create the journal"):
        JournalWriter(journal, identity)
    assert target.read_text() == "untouched"


def test_a_fifo_in_place_of_a_journal_is_rejected_and_does_not_block(journal: Path, identity: RunIdentity) -> None:
    journal.parent.mkdir(parents=True)
    os.mkfifo(journal)
    reader = os.open(journal, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(JournalError, match="it is no regular file"):
            JournalWriter(journal, identity)
        with pytest.raises(JournalError, match="cannot read the journal"):
            read_journal(journal)
    finally:
        os.close(reader)
    with pytest.raises(JournalError, match="cannot create the journal"):
        JournalWriter(journal, identity)


def test_journal_of_another_user_is_rejected(
    journal: Path, identity: RunIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.parent.mkdir(parents=True)
    journal.touch()
    monkeypatch.setattr(os, "geteuid", lambda: 4_242)
    with pytest.raises(JournalError, match="it belongs to another user"):
        JournalWriter(journal, identity)
    assert journal.read_bytes() == b""


def test_members_that_another_user_added_to_a_run_are_left_out(
    journal: Path, identity: RunIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = identity.of_member("node-2", NODE)
    JournalWriter(journal, identity).write(StepStarted(step="a" * 16, kind="cluster", name="c"))
    JournalWriter(journal_of(member), member).write(StepStarted(step="b" * 16, kind="node", name="n"))
    assert len(read_journal(journal).steps) == 2
    for foreign in (journal_of(member), journal_of(member).parent):
        with monkeypatch.context() as context:
            give_away(context, foreign)
            assert [step.kind for step in read_journal(journal).steps] == ["cluster"]
    journal_of(member).parent.rename(journal.parent / "elsewhere")
    journal_of(member).parent.symlink_to(journal.parent / "elsewhere")
    assert [step.kind for step in read_journal(journal).steps] == ["cluster"]


def test_journal_is_not_written_through_a_folder_link_of_another_user(
    identity: RunIdentity, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    member = identity.of_member("node-2", NODE)
    folder = journal_of(member).parent
    folder.parent.mkdir(parents=True)
    folder.symlink_to(tmp_path)
    with monkeypatch.context() as context:
        context.setattr(os, "geteuid", lambda: 4_242)
        give_away(context, folder)
        with pytest.raises(JournalError, match="it is a link of another user"):
            JournalWriter(journal_of(member), member)
    assert not list(tmp_path.glob("*.jsonl"))
    JournalWriter(journal_of(member), member).close()
    assert list(tmp_path.glob("*.jsonl"))


def test_endless_file_is_no_journal(tmp_path: Path) -> None:
    (tmp_path / "run.jsonl").symlink_to("/dev/zero")
    with pytest.raises(JournalError, match="it is no regular file"):
        read_journal(tmp_path / "run.jsonl")


def test_lines_that_cannot_be_decoded_are_skipped_and_counted(journal: Path, identity: RunIdentity) -> None:
    write_start(journal, identity)
    first, *others = journal.read_bytes().splitlines(keepends=True)
    damage = [b"\0" * 100 + b"\n", b"{}\n", b"x" * 3_000_000 + b"\n", b'{"event": "E", "time_ns": 1, "span": null}\n']
    journal.write_bytes(b"".join([first, *damage, *others]))
    run = read_journal(journal)
    assert [step.name for step in run.steps] == ["node-1", "download"]
    assert run.skipped == 4


def test_a_member_whose_journal_is_unreadable_does_not_hide_the_run(journal: Path, identity: RunIdentity) -> None:
    write_start(journal, identity).close()
    journal.with_suffix("").mkdir()
    (journal.with_suffix("") / "node-2.jsonl").write_bytes(b"damaged")
    assert len(read_journal(journal).steps) == 2


@pytest.mark.parametrize(
    "odd",
    [float("nan"), float("inf"), 2**20_000, b"bytes", "\ud800", "\x1b]0;x\x07", ["deep", [["er"]]], None, "x" * 10**6],
    ids=["nan", "inf", "huge", "bytes", "surrogate", "control", "nested", "none", "long"],
)
def test_an_odd_value_is_written_so_that_the_line_can_be_decoded(
    odd: Any, journal: Path, identity: RunIdentity
) -> None:
    attributes = {"odd": odd, "cyclic": []}
    attributes["cyclic"].append(attributes["cyclic"])
    writer = JournalWriter(journal, identity)
    writer.write(
        StepStarted(step=NODE, kind="download", name=odd if isinstance(odd, str) else "m", attributes=attributes)
    )
    writer.write(StepProgress(step=NODE, kind="download", name="m", done=odd if isinstance(odd, float) else 1.0))
    writer.close()
    run = read_journal(journal)
    assert run.skipped == 0
    assert set(run.steps[0].attributes) == {"odd", "cyclic"}
    assert max(map(len, journal.read_bytes().splitlines())) <= MAX_LINE_BYTES


def test_a_line_of_large_attributes_loses_them_and_stays_within_the_limit(journal: Path, identity: RunIdentity) -> None:
    writer = JournalWriter(journal, identity)
    large = {f"key {number}": "a word " * 1_000 for number in range(100)}
    writer.write(StepStarted(step=NODE, kind="node", name="n", attributes=large))
    writer.close()
    assert max(map(len, journal.read_bytes().splitlines())) <= MAX_LINE_BYTES
    assert read_journal(journal).steps[0].attributes == {"truncated": True}


_FILLS_THE_DISK = """
import logging, resource, signal, sys
from pathlib import Path
from phasebus.bus import StepStarted
from phasebus.observers import JournalObserver
from phasebus.observers import JournalObserver
from phasebus.telemetry import RunIdentity
from phasebus.telemetry.journal import JournalWriter
logging.basicConfig(format="%(message)s")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
observer = JournalObserver(JournalWriter(Path(sys.argv[1]), RunIdentity.fresh("node-1", {})))
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))
for number in range(50):
    observer.observe(StepStarted(step=f"{number:016x}", kind="phase", name="x"))
observer.close()
"""


def test_a_full_disk_ends_the_journal_after_a_whole_line_with_one_warning(journal: Path) -> None:
    journal.parent.mkdir(parents=True)
    command = [sys.executable, "-c", _FILLS_THE_DISK, str(journal)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stderr.count(f"cannot write the journal {journal}: ") == 1
    assert done.stderr.count("\n") == 1
    assert journal.read_bytes().endswith(b"\n")
    run = read_journal(journal)
    assert run.skipped == 0
    assert len(run.steps) >= 2


def test_journal_whose_first_line_cannot_be_written_is_removed(
    journal: Path, identity: RunIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int, content: bytes) -> int:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", fail)
        with pytest.raises(JournalError, match="File too large"):
            JournalWriter(journal, identity)
    assert not journal.exists()


@pytest.mark.parametrize("node", ["../../outside", "/etc/node", "a\0b", ".."])
def test_the_journal_of_a_member_stays_in_the_folder_of_its_run(node: str, identity: RunIdentity) -> None:
    member = identity.of_member(node, NODE)
    JournalWriter(journal_of(member), member).close()
    (found,) = journal_path(identity.run).with_suffix("").iterdir()
    assert find_journal(str(found)) == journal_of(member)


@pytest.mark.parametrize("kept", [0, 0.5])
def test_journal_that_another_program_truncates_begins_again(journal: Path, identity: RunIdentity, kept: float) -> None:
    writer = write_start(journal, identity)
    os.truncate(journal, int(journal.stat().st_size * kept))
    writer.write(StepFinished(step=PHASE, parent=NODE, kind="phase", name="download", seconds=2.0))
    writer.write(StepFinished(step=NODE, kind="node", name="node-1", seconds=3.0))
    writer.close()
    run = read_journal(journal)
    assert (run.state, run.run) == ("closed", identity.run)
    download = next(step for step in run.steps if step.id == PHASE)
    assert download.outcome == "finished"
    if not kept:
        assert download.seconds(0) == pytest.approx(2.0)


def test_journal_that_is_removed_ends_with_one_warning(
    journal: Path, identity: RunIdentity, caplog: pytest.LogCaptureFixture
) -> None:
    observer = JournalObserver(write_start(journal, identity))
    journal.unlink()
    for _ in range(2):
        observer.record(StepFinished(step=NODE, kind="node", name="node-1", seconds=3.0))
    observer.close()
    assert [record.getMessage() for record in caplog.records] == [
        f"cannot write the journal {journal}: it was removed. The run goes on without it"
    ]


def test_an_event_after_the_end_is_not_written_into_another_file(
    journal: Path, identity: RunIdentity, tmp_path: Path
) -> None:
    writer = write_start(journal, identity)
    writer.close()
    with (tmp_path / "other").open("wb") as other:  # it gets the number that the journal's descriptor had
        with pytest.raises(OSError, match="Bad file descriptor"):
            writer.write(StepStarted(step="1" * 16, kind="node", name="n"))
        assert os.fstat(other.fileno()).st_size == 0
