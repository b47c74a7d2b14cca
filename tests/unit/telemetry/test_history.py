from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from phasebus.telemetry.history import (
    Configuration,
    Retention,
    earlier_starts,
    find_run,
    machine_factors,
    prune,
    recorded_runs,
    usual_runs,
    version_factors,
)
from phasebus.telemetry.history.machine import cpu_seconds
from phasebus.telemetry.history.retention import StoredRun
from phasebus.telemetry.journal import JournalError, journal_path, read_journal, runs_folder, summarize
from tests.support.foreign_files import give_away
from tests.support.runs import run_of, step, write_journal

DAY = 86_400.0
CONFIGURATION = Configuration.of({"model": "m", "args.max_model_len": 256})


def run_id(day: int) -> str:
    return f"202601{day:02}T000000-aaaa"


def record(run: str, seconds: float = 20.0, configuration: Configuration | None = CONFIGURATION, **fields: Any) -> Path:
    attributes = {"model": "m", **(configuration.attributes if configuration else {}), **fields.pop("attributes", {})}
    root = step(fields.pop("name", "node"), 0, seconds, kind="node", **fields, **attributes)
    return write_journal(journal_path(run), run_of(root, step("download", 1, 8, "node"), run=run, end=seconds))


def aged(path: Path, seconds: float = 2 * DAY) -> Path:
    """Return `path`, changed `seconds` ago."""
    changed = time.time() - seconds
    os.utime(path, (changed, changed))
    return path


def removed(*retention: Any, **options: Any) -> list[str]:
    return [each.run for each in prune(*retention, **options)]


# configurations


def test_equal_factors_in_any_order_have_one_fingerprint() -> None:
    one, other = Configuration.of({"a": 1, "b": "x"}), Configuration.of({"b": "x", "a": 1})
    assert one.fingerprint == other.fingerprint
    assert len(one.fingerprint) == 12
    assert Configuration.of({"a": 2, "b": "x"}).fingerprint != one.fingerprint


def test_a_configuration_is_read_back_from_the_attributes_of_a_step() -> None:
    assert Configuration.from_attributes({"run": "r", **CONFIGURATION.attributes}) == CONFIGURATION
    assert Configuration.from_attributes({"run": "r"}) is None


def test_secret_factors_are_masked() -> None:
    attributes = json.dumps(Configuration.of({"args.hf_token": "abcdefgh12345678", "model": "m"}).attributes)
    assert "abcdefgh12345678" not in attributes


def test_many_and_long_factors_are_bounded_and_still_count() -> None:
    many = {f"args.{number:03}": number for number in range(200)}
    attributes = Configuration.of(many).attributes
    assert len(attributes) <= 41
    assert Configuration.of({**many, "args.199": 0}).fingerprint != attributes["configuration"]
    long = Configuration.of({"command": "x" * 5_000 + "a"})
    assert len(str(long.factors["command"])) <= 200
    assert long.fingerprint != Configuration.of({"command": "x" * 5_000 + "b"}).fingerprint


def test_a_difference_has_the_factors_of_both_sides() -> None:
    before, now = Configuration.of({"a": 1, "b": 2}), Configuration.of({"b": 3, "c": 4})
    assert before.difference(now) == {"a": (1, None), "b": (2, 3), "c": (None, 4)}


def test_the_machine_and_the_versions_are_factors() -> None:
    assert machine_factors()["machine.cpus"] in range(1, 10_000)
    versions = version_factors(["anyio", "no-such-package"])
    assert {"version.python", "version.phasebus", "version.anyio"} == set(versions)


# summaries


def test_a_summary_has_the_outcome_of_the_outermost_step() -> None:
    summary = summarize(record(run_id(1)))
    assert (summary.kind, summary.outcome, summary.seconds, summary.state) == ("node", "finished", 20.0, "closed")
    assert Configuration.from_attributes(summary.attributes) == CONFIGURATION


def test_a_summary_of_a_journal_that_was_cut_off_is_died() -> None:
    path = record(run_id(1))
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-2]) + lines[-2][:30])
    assert (summarize(path).outcome, summarize(path).seconds) == ("died", None)


def test_summary_of_a_closed_journal_without_the_end_of_the_start_is_unknown() -> None:
    path = record(run_id(1))
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:-3], lines[-1]]))  # the disk was full, and then had room for the last line
    assert (summarize(path).state, summarize(path).outcome, summarize(path).seconds) == ("closed", "unknown", None)


def test_a_summary_without_any_step_is_one_without_an_outcome() -> None:
    path = record(run_id(1))
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    assert (summarize(path).outcome, summarize(path).kind) == ("", "")


def test_journals_that_cannot_be_read_are_left_out() -> None:
    record(run_id(1))
    (runs_folder() / "20260102T000000-bbbb.jsonl").write_bytes(b"\x89PNG\n")
    (runs_folder() / "20260103T000000-cccc.jsonl").mkdir()
    assert [each.run for each in recorded_runs()] == [run_id(1)]


def test_without_a_folder_there_are_no_runs() -> None:
    assert not list(recorded_runs())
    assert not prune()


# finding runs


@pytest.mark.parametrize(
    ("name", "day"),
    [
        (None, 3),
        ("last", 3),
        ("previous", 2),
        ("20260101", 1),
        (CONFIGURATION.fingerprint, 2),
        (CONFIGURATION.fingerprint[:6], 2),
        ("org/model", 3),
        ("prod", 1),
    ],
)
def test_a_run_is_found_by_its_id_configuration_model_or_name(name: str | None, day: int) -> None:
    record(run_id(1), name="prod")
    record(run_id(2))
    record(run_id(3), configuration=None, attributes={"model": "org/model"})
    assert find_run(name) == journal_path(run_id(day))


def test_the_last_run_is_the_last_that_may_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for day in (1, 2, 3):
        record(run_id(day))
    of_another_user = journal_path(run_id(3))
    monkeypatch.setattr("phasebus.telemetry.journal.location.os.access", lambda path, _: path != of_another_user)
    assert find_run() == journal_path(run_id(2))
    assert find_run("previous") == journal_path(run_id(1))
    assert find_run(run_id(3)) == of_another_user


def test_last_run_belongs_to_this_user_and_is_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for day in (1, 2, 3):
        record(run_id(day))
    foreign, pipe, folder, link, own_link = (journal_path(run_id(day)) for day in (3, 4, 5, 6, 7))
    os.mkfifo(pipe)
    folder.mkdir()
    link.symlink_to("/etc/passwd")
    own_link.symlink_to(foreign)
    give_away(monkeypatch, foreign, link)
    assert find_run() == own_link
    own_link.unlink()
    assert find_run() == journal_path(run_id(2))
    assert find_run("previous") == journal_path(run_id(1))
    assert [each.run for each in recorded_runs()] == [run_id(2), run_id(1)]
    assert find_run(run_id(3)) == foreign
    earlier = earlier_starts("node", summarize(journal_path(run_id(2))).attributes)
    assert earlier is not None
    assert len(earlier.runs) == 2


def test_runs_of_others_are_listed_where_this_user_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for day in (1, 2):
        record(run_id(day))
    give_away(monkeypatch, journal_path(run_id(1)), journal_path(run_id(2)))
    assert [each.run for each in recorded_runs()] == [run_id(2), run_id(1)]


def test_folder_of_runs_that_may_not_be_read_is_an_error_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: Path) -> Iterator[Path]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(JournalError, match=f"cannot read the folder of runs {runs_folder()}: Permission denied"):
        find_run()
    assert list(recorded_runs()) == []


@pytest.mark.parametrize("name", ["no-such-run", "[", "*", "a/b.jsonl", "a/" + 300 * "b" + ".jsonl", ""])
def test_a_name_of_no_run_is_an_error(name: str) -> None:
    record(run_id(1), name="prod")
    if name == "":
        assert find_run(name) == journal_path(run_id(1))
    else:
        with pytest.raises(JournalError):
            find_run(name)


def test_usual_runs_are_the_ready_ones_of_the_same_configuration() -> None:
    record(run_id(1))
    record(run_id(2), outcome="failed")
    record(run_id(3), configuration=Configuration.of({"model": "other"}))
    last = record(run_id(4))
    assert [run.run for run in usual_runs(read_journal(last))] == [run_id(1)]
    with pytest.raises(JournalError, match="no other run"):
        usual_runs(summarize(journal_path(run_id(3))))


# retention


def test_the_newest_runs_are_kept() -> None:
    for day in range(1, 6):
        aged(record(run_id(day)))
    assert removed(Retention(runs=3)) == [run_id(1), run_id(2)]
    assert [each.run for each in recorded_runs()] == [run_id(5), run_id(4), run_id(3)]


def test_old_and_large_runs_are_removed() -> None:
    aged(record(run_id(1)), 100 * DAY)
    aged(record(run_id(2)))
    size = aged(record(run_id(3))).stat().st_size
    assert removed(Retention(size=size), dry_run=True) == [run_id(1), run_id(2)]
    assert removed() == [run_id(1)]


def test_all_files_of_a_run_are_removed_and_no_others() -> None:
    path = aged(record(run_id(1)))
    log = path.with_suffix(".engine.log")
    log.write_text("x")
    aged(log)
    members = path.with_suffix("")
    members.mkdir()
    (members / "node-0.jsonl").write_text("{}\n")
    aged(members / "node-0.jsonl")
    mine = aged(path.with_name("notes.txt"), 0) if path.with_name("notes.txt").exists() else path.with_name("notes.txt")
    mine.write_text("mine")
    assert removed(Retention(runs=0)) == [run_id(1)]
    assert list(runs_folder().iterdir()) == [mine]


def test_members_without_the_journal_of_their_run_are_removed() -> None:
    members = runs_folder() / run_id(1)
    members.mkdir(parents=True)
    (members / "node-0.jsonl").write_text("{}\n")
    aged(members / "node-0.jsonl")
    assert removed(Retention(runs=0)) == [run_id(1)]
    assert not members.exists()


def test_runs_that_may_still_go_on_are_kept() -> None:
    record(run_id(1))  # was changed just now
    here = aged(record(run_id(2)))
    lines = here.read_text().splitlines()
    me = {"pid": os.getpid(), "process_created": psutil.Process().create_time()}
    here.write_text("\n".join([json.dumps(json.loads(lines[0]) | me), *lines[1:-1], ""]))
    aged(here)
    elsewhere = record(run_id(3))
    first = json.dumps(json.loads(elsewhere.read_text().splitlines()[0]) | {"host": "another-machine"})
    elsewhere.write_text("\n".join([first, *elsewhere.read_text().splitlines()[1:-1], ""]))
    aged(elsewhere)
    assert not prune(Retention(runs=0))
    aged(elsewhere, 10 * DAY)
    assert removed(Retention(runs=0)) == [run_id(3)]


def test_the_own_run_is_kept_whatever_its_age() -> None:
    aged(record(run_id(1)), 1000 * DAY)
    assert not prune(Retention(runs=0), keep=run_id(1))


def test_links_are_not_followed_when_runs_are_removed(tmp_path: Path) -> None:
    runs_folder().mkdir(parents=True)
    target = tmp_path / "precious"
    target.mkdir()
    (target / "x").write_text("x")
    (runs_folder() / run_id(1)).symlink_to(target)
    (runs_folder() / f"{run_id(2)}.jsonl").symlink_to(target / "x")
    assert not prune(Retention(runs=0))
    assert (target / "x").exists()


def test_a_link_that_replaces_a_folder_of_members_meanwhile_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = runs_folder() / run_id(1)
    members.mkdir(parents=True)
    aged(members)
    (tmp_path / "precious").write_text("x")

    def replace_folder(*_: Any) -> bool:
        members.rmdir()
        members.symlink_to(tmp_path)
        return False

    monkeypatch.setattr("phasebus.telemetry.history.retention._may_run", replace_folder)
    prune(Retention(runs=0))
    assert (tmp_path / "precious").exists()


def test_files_of_another_user_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    aged(record(run_id(1)))
    monkeypatch.setattr("phasebus.telemetry.history.retention.os.geteuid", lambda: os.getuid() + 1)
    assert not prune(Retention(runs=0))


def test_a_folder_that_cannot_be_changed_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    path = aged(record(run_id(1)))

    def refuse(_: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    prune(Retention(runs=0))
    assert path.exists()


def test_two_processes_may_prune_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for day in range(1, 4):
        aged(record(run_id(day)))
    unlink = Path.unlink

    def unlink_twice(path: Path) -> None:
        unlink(path)
        unlink(path)

    monkeypatch.setattr(Path, "unlink", unlink_twice)
    assert len(prune(Retention(runs=0))) == 3
    assert not list(recorded_runs())


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Retention()),
        ({"PHASEBUS_KEEP_RUNS": "5", "PHASEBUS_KEEP_DAYS": "7"}, Retention(runs=5, days=7)),
        ({"PHASEBUS_KEEP_RUNS": "all", "PHASEBUS_KEEP_DAYS": "-1"}, Retention()),
        ({"PHASEBUS_KEEP_RUNS": "9" * 5000, "PHASEBUS_KEEP_DAYS": "²"}, Retention()),
    ],
)
def test_the_environment_sets_what_is_kept(environment: dict[str, str], expected: Retention) -> None:
    assert Retention.from_environment(environment) == expected


def test_a_stored_run_counts_its_files() -> None:
    path = aged(record(run_id(1)))
    (stored,) = prune(Retention(runs=0), dry_run=True)
    assert isinstance(stored, StoredRun)
    assert stored.size == path.stat().st_size


def test_the_cpu_time_of_a_process_is_none_once_it_is_gone() -> None:
    assert (cpu_seconds(os.getpid()) or 0) > 0
    assert cpu_seconds(2**22 + 1) is None  # more than Linux numbers
