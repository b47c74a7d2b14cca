from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from phasebus.initializer.cluster.hub.recorder import DRIVER, JournalRecorder
from phasebus.telemetry.analysis import walk
from phasebus.telemetry.journal import journal_path, read_journal, runs_folder
from tests.support.runs import cluster, write_journal

RUN = "20260101T000000-aaaa"


@pytest.fixture
def journals(tmp_path: Path) -> dict[str, bytes]:
    """The journals of a cluster of two nodes, as their machines have them."""
    run = write_journal(tmp_path / f"{RUN}.jsonl", cluster(2))
    members = {path.stem: path.read_bytes() for path in run.with_suffix("").iterdir()}
    found = {DRIVER: run.read_bytes(), **members}
    return {name: content.replace(b'"run": "r"', f'"run": "{RUN}"'.encode()) for name, content in found.items()}


def sent(recorder: JournalRecorder, node: str, content: bytes, parts: int = 3) -> None:
    lines = content.splitlines(keepends=True)
    offset = 0
    for number in range(parts):
        part = b"".join(lines[number * len(lines) // parts : (number + 1) * len(lines) // parts])
        recorder.put(node, offset, part)
        offset += len(part)


def test_the_journals_of_other_machines_make_a_whole_run(journals: dict[str, bytes]) -> None:
    recorder = JournalRecorder()
    for node, content in journals.items():
        sent(recorder, node, content)
    recorder.close()
    run = read_journal(journal_path(RUN))
    assert {at.node for at in walk(run)} == {"", "node-0", "node-1"}
    assert run.state == "closed"
    assert (runs_folder() / RUN / "node-0.received.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_journal_that_a_node_writes_here_itself_is_not_recorded(journals: dict[str, bytes]) -> None:
    own = runs_folder() / RUN / "node-0.jsonl"
    own.parent.mkdir(parents=True)
    own.write_bytes(journals["node-0"])
    recorder = JournalRecorder()
    sent(recorder, "node-0", journals["node-0"])
    recorder.close()
    assert [path.name for path in own.parent.iterdir()] == ["node-0.jsonl"]


def test_a_journal_of_a_node_on_the_same_machine_is_not_recorded(journals: dict[str, bytes]) -> None:
    here = journals["node-0"].replace(b'"format"', b'"host": "%s", "format"' % platform.node().encode(), 1)
    recorder = JournalRecorder()
    sent(recorder, "node-0", here)
    recorder.close()
    assert not runs_folder().exists()


def test_a_journal_that_is_sent_again_replaces_what_was_recorded(journals: dict[str, bytes]) -> None:
    for _ in range(2):
        recorder = JournalRecorder()
        sent(recorder, "node-0", journals["node-0"])
        recorder.close()
    assert (runs_folder() / RUN / "node-0.received.jsonl").read_bytes() == journals["node-0"]


def test_a_journal_with_a_missing_part_is_recorded_up_to_it(journals: dict[str, bytes]) -> None:
    recorder = JournalRecorder()
    content = journals["node-0"]
    first = content[: content.index(b"\n") + 1]
    recorder.put("node-0", 0, first)
    recorder.put("node-0", len(first) + 10, b"{}\n")
    recorder.put("node-0", len(first), b"{}\n")
    recorder.close()
    assert (runs_folder() / RUN / "node-0.received.jsonl").read_bytes() == first


@pytest.mark.parametrize("node", ["../../x", "a/b", ".."])
def test_odd_names_stay_in_the_folder_of_the_run(journals: dict[str, bytes], node: str) -> None:
    recorder = JournalRecorder()
    sent(recorder, node, journals["node-0"].replace(RUN.encode(), b"../../" + RUN.encode()))
    recorder.close()
    assert [path.parent for path in runs_folder().rglob("*.received.jsonl")] == [runs_folder() / RUN]


def test_what_is_no_journal_is_not_recorded() -> None:
    recorder = JournalRecorder()
    for content in (b"hello\n", b'{"event": "X", "time_ns": 1}\n', b""):
        recorder.put("node-0", 0, content)
    recorder.close()
    assert not runs_folder().exists()


def test_a_folder_that_cannot_be_written_is_one_warning(
    journals: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("phasebus.initializer.cluster.hub.recorder.open_regular", refuse)
    recorder = JournalRecorder()
    for node in ("node-0", "node-1"):
        sent(recorder, node, journals[node])
    recorder.close()
    assert caplog.text.count("The hub continues without it") == 1
