from __future__ import annotations

import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import httpx
import pytest

from phasebus.bus import StepFailed, StepProgress, StepStarted
from phasebus.observers import TimelineObserver
from phasebus.telemetry import LiveStep, Metrics, RunIdentity, Status, Timeline
from phasebus.telemetry.service import Server, build_app
from phasebus.telemetry.service.page import page, page_of
from phasebus.telemetry.service.stream import stream
from phasebus.telemetry.timeline import MOST_STEPS

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


def test_steps_beyond_the_limit_are_counted_and_left_out(timeline: Timeline) -> None:
    for number in range(MOST_STEPS + 2):
        timeline.started(step(f"{number:016x}"))
    state = timeline.state()
    assert (len(state["steps"]), state["left_out"]) == (MOST_STEPS, 2)


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
