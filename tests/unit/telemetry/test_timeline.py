from __future__ import annotations

import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasebus.bus import StepFailed, StepProgress, StepStarted
from phasebus.observers import TimelineObserver
from phasebus.telemetry import LiveStep, Metrics, RunIdentity, Status, Timeline
from phasebus.telemetry.service import Server, build_app
from phasebus.telemetry.service.page import page, page_of
from phasebus.telemetry.service.stream import stream
from phasebus.telemetry.timeline import Capacity

NODE, PHASE = "a" * 16, "b" * 16


@pytest.fixture
def timeline() -> Timeline:
    return Timeline(RunIdentity.fresh("node-1", {}))


def step(id_: str, parent: str | None = None, kind: str = "phase", name: str = "download") -> LiveStep:
    return LiveStep(id=id_, parent=parent, node="node-1", kind=kind, name=name, start=1.0)


def test_a_reader_receives_the_changes_since_its_version(timeline: Timeline) -> None:
    timeline.started(step(NODE, kind="node", name="n"))
    seen, _ = timeline.changes(0)
    timeline.started(step(PHASE, NODE))
    _, changes = timeline.changes(seen)
    assert [each["id"] for each in json.loads(changes)["steps"]] == [PHASE]
    assert {each["id"] for each in timeline.state()["steps"]} == {NODE, PHASE}


def test_a_rate_is_known_while_a_step_runs_and_not_after(timeline: Timeline) -> None:
    timeline.started(step(PHASE))
    timeline.progressed(PHASE, 0, 100, "By", 1.0)
    timeline.progressed(PHASE, 10, 100, "By", 2.0)
    assert timeline.state()["steps"][0]["rate"] == 10
    timeline.ended(PHASE, 3.0, "finished", None, {})
    assert "rate" not in timeline.state()["steps"][0]


def test_rate_is_smoothed_over_three_seconds(timeline: Timeline) -> None:
    timeline.started(step(PHASE))
    for done, seconds in ((0, 1.0), (10, 2.0), (40, 3.0)):
        timeline.progressed(PHASE, done, 100, "By", seconds)
    assert timeline.state()["steps"][0]["rate"] == pytest.approx(10 + (30 - 10) / 3)
    timeline.progressed(PHASE, 100, 100, "By", 9.0)
    assert timeline.state()["steps"][0]["rate"] == pytest.approx(10), "after three seconds the past no longer counts"


def test_remaining_time_counts_down_from_when_it_was_recorded(
    timeline: Timeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("phasebus.telemetry.timeline.now_ns", lambda: int(clock[0] * 1e9))
    seen, _ = timeline.changes(timeline.version)
    timeline.expect({"seconds": 30.0, "low": 4.0, "high": 50.0, "runs": 5, "basis": "same"})
    clock[0] = 110.0
    version, changes = timeline.changes(seen)
    assert version > seen, "a reader receives it although no step has changed"
    assert json.loads(changes)["remaining"] == {"seconds": 20.0, "low": 0.0, "high": 40.0, "runs": 5, "basis": "same"}
    timeline.expect(None)
    assert timeline.state()["remaining"] is None


def test_stuck_steps_and_usual_durations_reach_a_reader_once(timeline: Timeline) -> None:
    timeline.started(step(PHASE))
    timeline.set_usual(PHASE, {"seconds": 2.0, "low": 1.0, "high": 3.0})
    timeline.set_stuck([{"step": PHASE, "reason": "no bytes read"}])
    state, version = timeline.state(), timeline.version
    assert state["steps"][0]["usual"] == {"seconds": 2.0, "low": 1.0, "high": 3.0}
    assert state["stuck"] == [{"step": PHASE, "reason": "no bytes read"}]
    timeline.set_usual(PHASE, {"seconds": 2.0, "low": 1.0, "high": 3.0})
    timeline.set_stuck([{"step": PHASE, "reason": "no bytes read"}])
    assert timeline.version == version


SMALL = Capacity(steps=20, start_steps=5, removed=10)
"""A capacity that a test reaches with few steps."""


@pytest.fixture
def small() -> Timeline:
    return Timeline(RunIdentity.fresh("node-1", {}), capacity=SMALL)


def serve_requests(timeline: Timeline, numbers: range) -> None:
    for number in numbers:
        timeline.started(step(f"{number:016x}", kind="request"))
        timeline.ended(f"{number:016x}", 2.0, "finished", None, {})


def test_the_steps_that_ended_first_are_evicted_and_counted(small: Timeline) -> None:
    serve_requests(small, range(100))
    state = small.state()
    assert [int(each["id"], 16) for each in state["steps"]] == [*range(5), *range(85, 100)]
    assert state["left_out"] == 80


def test_running_steps_and_nodes_are_kept_while_others_are_evicted(small: Timeline) -> None:
    serve_requests(small, range(5))
    small.started(step(NODE, kind="node"))
    small.started(step(PHASE, NODE))
    small.ended(NODE, 2.0, "finished", None, {})
    serve_requests(small, range(5, 200))
    assert {NODE, PHASE} <= {each["id"] for each in small.state()["steps"]}


def test_steps_that_begin_when_all_others_run_are_left_out(small: Timeline) -> None:
    for number in range(22):
        small.started(step(f"{number:016x}"))
    state = small.state()
    assert (len(state["steps"]), state["left_out"]) == (20, 2)


@given(st.lists(st.tuples(st.sampled_from(["start", "end", "read"]), st.integers(0, 40)), max_size=200))
def test_a_reader_of_the_changes_has_the_same_steps_as_the_timeline(actions: list[tuple[str, int]]) -> None:
    timeline = Timeline(RunIdentity.fresh("node-1", {}), capacity=SMALL)
    version, known = 0, dict[str, Any]()

    def read(characters: int) -> None:
        nonlocal version
        if not timeline.is_resumable(version):
            version, _, ids = timeline.contents()
            known.clear()
            known.update((each["id"], each) for each in json.loads(f"[{timeline.encoded_steps(ids, 0, 1 << 30)[0]}]"))
        version, changes = timeline.changes(version, characters)
        for removed in json.loads(changes)["removed"]:
            known.pop(removed, None)
        known.update((each["id"], each) for each in json.loads(changes)["steps"])

    for action, number in actions:
        if action == "start":
            timeline.started(step(f"{number:016x}"))
        elif action == "end":
            timeline.ended(f"{number:016x}", 2.0, "finished", None, {})
        else:
            read(1 + number * 50)
    while version != timeline.version:
        read(1)
    assert known == {each["id"]: each for each in timeline.state()["steps"]}


def test_the_log_of_changes_is_as_long_as_the_steps(small: Timeline) -> None:
    serve_requests(small, range(5000))
    assert len(small._log) < 2000


def test_the_observer_records_failures_without_secrets(timeline: Timeline) -> None:
    observer = TimelineObserver(timeline)
    observer.observe(StepStarted(step=PHASE, kind="phase", name="download", attributes={"token": "hunter2secret"}))
    observer.observe(StepProgress(step=PHASE, kind="phase", name="download", done=1, total=2, unit="By"))
    error = ValueError("HF_TOKEN=hunter2secret")
    observer.observe(StepFailed(step=PHASE, kind="phase", name="download", seconds=1.0, outcome="failed", error=error))
    (received,) = timeline.state()["steps"]
    assert (received["outcome"], received["error"], received["done"]) == ("failed", "HF_TOKEN=[redacted]", 1)
    assert "hunter2secret" not in json.dumps(timeline.state())


async def events(received: AsyncIterator[str]) -> list[tuple[str, Any]]:
    found = []
    async for each in received:
        fields = dict(line.split(": ", 1) for line in each.splitlines() if ": " in line)
        if "event" in fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the service runs in an event loop of uvicorn's
async def test_a_stream_begins_with_the_state_and_ends_when_the_run_does(timeline: Timeline) -> None:
    timeline.started(step(NODE, kind="node"))
    timeline.close()
    received = await events(stream(timeline))
    assert [name for name, _ in received] == ["state", "closed"]
    assert received[0][1]["steps"][0]["id"] == NODE


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_large_state_arrives_in_parts_of_which_the_last_has_the_id(timeline: Timeline) -> None:
    for number in range(3000):
        timeline.started(step(f"{number:016x}"))
    timeline.close()
    parts = [each async for each in stream(timeline)][1:-1]
    assert len(parts) > 2
    assert max(map(len, parts)) < 100_000
    assert [f"id: {timeline.epoch}:3000" in each for each in parts] == [False] * (len(parts) - 1) + [True]
    received = [json.loads(each.partition("data: ")[2]) for each in parts]
    assert [each["id"] for part in received for each in part["steps"]] == [f"{n:016x}" for n in range(3000)]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_reader_that_missed_too_many_evictions_receives_the_state(small: Timeline) -> None:
    serve_requests(small, range(10))
    known = f"{small.epoch}:{small.version}"
    serve_requests(small, range(10, 100))
    small.close()
    received = await events(stream(small, known))
    assert [name for name, _ in received] == ["state", "closed"]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_reader_with_a_version_receives_the_missed_changes_only(timeline: Timeline) -> None:
    timeline.started(step(NODE, kind="node"))
    known = f"{timeline.epoch}:{timeline.version}"
    timeline.started(step(PHASE, NODE))
    timeline.close()
    received = await events(stream(timeline, known))
    assert [name for name, _ in received] == ["change", "closed"]
    assert [each["id"] for each in received[0][1]["steps"]] == [PHASE]


def test_the_page_is_self_contained() -> None:
    html = page()
    assert "/* script */" not in html
    assert "https://" not in html
    assert "src=" not in html


def test_embedded_data_cannot_end_its_element() -> None:
    assert "</script><b>" not in page_of({"steps": [{"name": "</script><b>"}]})


def test_the_service_serves_the_page_under_a_policy(timeline: Timeline) -> None:
    server = Server(partial(build_app, Metrics("1"), Status(), timeline))
    server.start()
    try:
        answer = httpx.get(server.url, timeout=60)
        assert answer.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert httpx.get(f"{server.url}/timeline", timeout=60).json()["run"] == timeline.identity.run
    finally:
        server.close()


def test_the_service_exports_the_steps_for_perfetto_and_the_journal_if_there_is_one(
    timeline: Timeline, tmp_path: Path
) -> None:
    timeline.started(step(PHASE))
    server = Server(partial(build_app, Metrics("1"), Status(), timeline))
    server.start()
    try:
        assert timeline.state()["exports"] == ["perfetto"]
        assert httpx.get(f"{server.url}/journal.jsonl", timeout=60).status_code == 404
        trace = httpx.get(f"{server.url}/perfetto.json", timeout=60)
        assert "phase download" in {each["name"] for each in trace.json()["traceEvents"]}
        timeline.journal = tmp_path / "run.jsonl"
        timeline.journal.write_text("{}\n")
        assert timeline.state()["exports"] == ["perfetto", "journal"]
        journal = httpx.get(f"{server.url}/journal.jsonl", timeout=60)
        assert (journal.text, journal.headers["cache-control"]) == ("{}\n", "no-store")
        timeline.journal.rename(tmp_path / "secret")
        timeline.journal.symlink_to(tmp_path / "secret")
        assert httpx.get(f"{server.url}/journal.jsonl", timeout=60).status_code == 404
    finally:
        server.close()
