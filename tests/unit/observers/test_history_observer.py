from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from phasebus.bus import StepEvent, StepFinished, StepProgress, StepStarted
from phasebus.observers import HistoryObserver
from phasebus.telemetry import LiveStep, Metrics, RunIdentity, Timeline
from phasebus.telemetry.history import Configuration, EarlierStarts, earlier_starts
from phasebus.telemetry.journal import journal_path, runs_folder
from tests.support.runs import run_of, step, write_journal
from tests.support.waiting import wait_until

LONG, SHORT = (Configuration.of({"model": "m", "engine": "e", "args.max_model_len": length}) for length in (4096, 256))
OTHER = Configuration.of({"model": "other", "engine": "f"})
NEW = "20260109T000000-aaaa"
IDENTITY = RunIdentity(run=NEW, trace="0" * 32, node="n")


def record(day: int, seconds: float, configuration: Configuration = SHORT, **fields: Any) -> Path:
    root = step("vm", 0, seconds, kind="node", **fields, **configuration.attributes)
    download = step("download", 0, seconds / 4, "vm")
    run = f"2026010{day}T000000-aaaa"
    return write_journal(journal_path(run), run_of(root, download, run=run, end=seconds))


def begun(id_: str, kind: str, name: str, ago: float = 0.0, parent: str | None = None, **more: Any) -> StepStarted:
    now = time.time_ns() - int(ago * 1e9)
    return StepStarted(step=id_, parent=parent, kind=kind, name=name, time_ns=now, attributes=more)


def root(ago: float = 0.0, configuration: Configuration | None = SHORT) -> StepStarted:
    return begun("root", "node", "vm", ago, **(configuration.attributes if configuration else {}))


class Watched:
    """An observer with its outputs."""

    def __init__(self, identity: RunIdentity | None = IDENTITY, **options: Any) -> None:
        self.timeline = Timeline(IDENTITY)
        self.metrics = Metrics()
        self.observer = HistoryObserver(identity, self.timeline, self.metrics, seconds=0.02, **options)

    def observe(self, event: StepEvent) -> None:
        if isinstance(event, StepStarted):
            live = LiveStep(id=event.step, parent=None, node="n", kind=event.kind, name=event.name, start=0)
            self.timeline.started(live)
        self.observer.observe(event)

    def remaining(self) -> dict[str, Any]:
        wait_until(lambda: self.timeline.remaining is not None, "there is a forecast")
        found = self.timeline.remaining
        assert found is not None
        return found


@pytest.fixture
def watched() -> Iterator[Watched]:
    found = Watched()
    yield found
    found.observer.close()


def test_a_start_is_forecast_from_those_of_its_configuration(watched: Watched) -> None:
    record(1, 40)
    record(2, 40)
    record(3, 400, LONG)
    watched.observe(root(ago=11))
    watched.observe(begun("d", "phase", "download", ago=11, parent="root"))
    watched.observe(StepFinished(step="d", parent="root", kind="phase", name="download", seconds=10))
    found = watched.remaining()
    assert found["low"] <= found["seconds"] <= found["high"]
    assert 15 < found["seconds"] < 45
    assert (found["runs"], found["basis"]) == (2, "same")
    body = watched.metrics.render("")[0].decode()
    assert 15 < float(body.partition("\nphasebus_startup_remaining_seconds ")[2].split()[0]) < 45


def test_steps_have_their_usual_duration_whenever_they_began(watched: Watched) -> None:
    record(1, 40)
    watched.observe(root())
    watched.observe(begun("d", "phase", "download", parent="root"))
    wait_until(lambda: watched.timeline.usual_of("d") is not None, "the step has its usual duration")
    (shown,) = (each for each in watched.timeline.state()["steps"] if each["id"] == "d")
    assert shown["usual"]["seconds"] == 10.0


def test_a_step_that_usually_follows_is_named_until_it_begins(watched: Watched) -> None:
    record(1, 40)
    watched.observe(root())
    assert watched.remaining()["following"] == [{"kind": "phase", "name": "download", "process": "", "seconds": 10.0}]
    watched.observe(begun("d", "phase", "download", parent="root"))
    wait_until(lambda: not (watched.timeline.remaining or {})["following"], "the download no longer follows")


def test_a_step_that_the_timeline_learns_of_later_gets_its_usual_duration(watched: Watched) -> None:
    record(1, 40)
    watched.observer.observe(root())
    watched.remaining()
    watched.timeline.started(LiveStep(id="root", parent=None, node="n", kind="node", name="vm", start=0))
    wait_until(lambda: watched.timeline.usual_of("root") is not None, "the step has its usual duration")


def test_a_similar_configuration_is_used_without_the_same_one(watched: Watched) -> None:
    record(1, 40, LONG)
    record(2, 90, OTHER)
    watched.observe(root())
    found = watched.remaining()
    assert (found["runs"], found["basis"]) == (1, "similar")
    assert found["high"] > 1.4 * found["seconds"]


def test_nothing_is_claimed_without_a_like_start() -> None:
    record(1, 40, OTHER)
    record(2, 40, outcome="failed")
    assert earlier_starts("node", SHORT.attributes) is None
    assert earlier_starts("cluster", OTHER.attributes) is None
    assert earlier_starts("node", {}) is None
    found = earlier_starts("node", OTHER.attributes)
    assert found is not None
    assert found.basis == "same"
    assert earlier_starts("node", OTHER.attributes, run="20260101T000000-aaaa") is None


def test_reading_the_history_ends_in_time() -> None:
    for day in range(1, 9):
        record(day, 40)
    times = iter(range(1000))
    found = earlier_starts("node", SHORT.attributes, clock=lambda: float(next(times)))
    assert found is not None
    assert len(found.runs) < 8


def test_the_end_of_a_start_ends_its_forecast(watched: Watched) -> None:
    record(1, 40)
    watched.observe(root())
    watched.remaining()
    watched.observe(StepFinished(step="root", parent=None, kind="node", name="vm", seconds=1))
    assert watched.timeline.remaining is None
    assert "\nphasebus_startup_remaining_seconds 0.0" in watched.metrics.render("")[0].decode()


def test_the_progress_of_a_step_sets_what_is_left_of_it(watched: Watched) -> None:
    record(1, 40)
    record(2, 40)
    watched.observe(root(ago=20))
    watched.observe(begun("d", "phase", "download", ago=20, parent="root"))
    watched.remaining()
    progress = StepProgress(step="d", parent="root", kind="phase", name="download", done=1, total=10, unit="By")
    watched.observe(progress)
    wait_until(lambda: watched.remaining()["seconds"] > 150, "the forecast follows the progress")


def test_a_slow_history_delays_no_event(watched: Watched) -> None:
    release = Event()

    def find(_: StepStarted, run: str) -> EarlierStarts | None:
        release.wait(30)
        return earlier_starts("node", SHORT.attributes, run=run)

    record(1, 40)
    slow = Watched(find=find)
    slow.observe(root())
    slow.observe(begun("d", "phase", "download", parent="root"))
    assert slow.timeline.remaining is None
    release.set()
    assert slow.remaining()["runs"] == 1
    slow.observer.close()


def test_an_unreadable_history_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    def find(*_: object) -> EarlierStarts | None:
        raise RuntimeError("odd journal")

    watched = Watched(find=find)
    watched.observe(root())
    wait_until(lambda: "no forecast of this start: RuntimeError: odd journal" in caplog.text, "there is a warning")
    watched.observe(begun("d", "phase", "download", parent="root"))
    watched.observer.close()


def test_old_runs_are_pruned_by_the_process_that_started_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHASEBUS_KEEP_RUNS", "1")
    for day in (1, 2, 3):
        path = record(day, 40)
        os.utime(path, (time.time() - 86_400,) * 2)
    member = Watched(IDENTITY.of_member("node-0", "0" * 16))
    write_journal(journal_path(NEW), run_of(run=NEW))
    member.observe(root(configuration=None))
    Watched(None).observe(root())
    own = Watched()
    own.observe(root(configuration=None))
    wait_until(lambda: len(list(runs_folder().iterdir())) == 1, "the old runs are gone")
    assert journal_path(NEW).exists()


def test_the_members_of_a_run_are_not_forecast() -> None:
    record(1, 40)
    member = Watched(IDENTITY.of_member("node-0", "0" * 16))
    member.observe(root())
    member.observe(StepFinished(step="root", parent=None, kind="node", name="vm", seconds=1))
    assert member.timeline.remaining is None
