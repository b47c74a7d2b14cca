from __future__ import annotations

import io
import logging
import signal
import time
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console
from rich.text import Text

from phasebus.initializer.cli import main, terminal, watching
from phasebus.initializer.cli.live import LiveTree, live_tree
from phasebus.initializer.cli.remote import Follower, RemoteStart, WatchError, is_loopback
from phasebus.telemetry import LiveStep, Metrics, RunIdentity, Status, Timeline
from phasebus.telemetry.service import Access, Server, build_app
from tests.support.programs import free_port
from tests.support.waiting import wait_until


def step(id_: str, parent: str | None, kind: str, name: str, **fields: Any) -> LiveStep:
    return LiveStep(id=id_, parent=parent, node="n", kind=kind, name=name, start=100.0, **fields)


def drawn(timeline: Timeline, now: float = 110.0) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(live_tree({each["id"]: each for each in timeline.state()["steps"]}, now))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def timeline() -> Timeline:
    timeline = Timeline(RunIdentity.fresh("n", {}))
    timeline.started(step("a", None, "node", "n"))
    timeline.started(step("b", "a", "phase", "download"))
    timeline.started(step("c", "b", "download", "org/llama"))
    return timeline


@pytest.fixture
def service(timeline: Timeline) -> Iterator[Server]:
    server = Server(partial(build_app, Metrics("1"), Status(), timeline))
    server.start()
    yield server
    server.close()


def watch(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["watch", *arguments])


def test_the_tree_shows_running_steps_with_duration_and_progress(timeline: Timeline) -> None:
    timeline.progressed("c", 2e9, 10e9, "By", 105.0)
    timeline.progressed("c", 3e9, 10e9, "By", 107.0)
    tree = drawn(timeline)
    assert "● node n  10 s" in tree
    assert "download org/llama  10 s  3 GB of 10 GB (30 %), 500 MB/s, 14 s left" in tree


def test_a_finished_step_is_one_line_and_a_failed_one_has_its_error(timeline: Timeline) -> None:
    timeline.ended("c", 104.0, "finished", None, {})
    timeline.ended("b", 104.0, "finished", None, {})
    timeline.started(step("d", "a", "phase", "engine_init"))
    timeline.ended("d", 105.0, "failed", "out of memory", {})
    tree = drawn(timeline)
    assert "✓ download  4 s" in tree
    assert "org/llama" not in tree
    assert "✗ engine init  5 s  failed: out of memory" in tree


def test_an_error_is_shown_once_where_it_arose(timeline: Timeline) -> None:
    for id_ in ("c", "b", "a"):
        timeline.ended(id_, 104.0, "failed", "no such bucket: models", {})
    tree = drawn(timeline, 104.0).splitlines()
    assert [line for line in tree[1:] if "no such bucket" in line] == [
        "    └── ✗ download org/llama  4 s  failed: no such bucket: models"
    ]
    assert tree[1:3] == ["✗ node n  4 s  failed", "└── ✗ download  4 s  failed"]


@pytest.mark.parametrize(("height", "has_finished"), [(24, True), (8, False)])
def test_a_low_terminal_shows_the_running_steps_without_the_finished_ones(
    timeline: Timeline, height: int, has_finished: bool
) -> None:
    for number in range(10):
        timeline.started(step(f"{number}", "a", "phase", f"early_{number}"))
        timeline.ended(f"{number}", 102.0, "finished", None, {})
    timeline.started(step("last", "a", "phase", "engine_init"))
    console = Console(file=io.StringIO(), width=80, height=height)
    console.print(LiveTree({each["id"]: each for each in timeline.state()["steps"]}, 110.0))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert "└── ● engine init  10 s" in lines
    assert len(lines) <= height
    assert any("✓ early 0" in line for line in lines) is has_finished


def test_a_stuck_step_is_marked_in_the_tree(timeline: Timeline) -> None:
    console = Console(file=io.StringIO(), width=120)
    steps = {each["id"]: each for each in timeline.state()["steps"]}
    console.print(live_tree(steps, 110.0, None, [{"step": "c", "reason": "no byte read for 60 s"}]))
    assert isinstance(console.file, io.StringIO)
    marks = [line.lstrip(" │├└─")[:1] for line in console.file.getvalue().splitlines()[1:]]
    assert marks == ["●", "●", "!"]


def test_watch_shows_that_it_connects_until_the_service_has_answered(timeline: Timeline, service: Server) -> None:
    timeline.close()
    start = RemoteStart(service.url)
    assert str(watching._tree(start)) == f"Connecting to {service.url}"
    list(start.changes())
    assert not isinstance(watching._tree(start), Text)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_that_would_end_the_process_at_once_exits_while_a_tree_is_drawn(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with watching._signals_exit():
            handler: Any = signal.getsignal(number)
            with pytest.raises(SystemExit, match=str(128 + number)):
                handler(number, None)
        assert signal.getsignal(number) is signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN)  # as below nohup
        with watching._signals_exit():
            assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_text_of_a_reason_and_of_a_log_line_is_printed_as_it_is(timeline: Timeline, service: Server) -> None:
    timeline.set_stuck([{"step": "c", "reason": "waits for models:key:[red]"}])
    timeline.close()
    assert "waits for models:key:[red]\n" in watch(service.url).output
    out = io.StringIO()
    handler = terminal._ConsoleHandler(Console(file=out, width=20))
    handler.emit(logging.makeLogRecord({"msg": "cannot read models:key:[red]"}))
    assert out.getvalue() == "cannot read models:key:[red]\n"


def test_watch_prints_an_error_once(timeline: Timeline, service: Server) -> None:
    for id_ in ("c", "b", "a"):
        timeline.ended(id_, 104.0, "failed", "no such bucket: models", {})
    result = watch(service.url, "--until-ready")
    assert result.exit_code == 1
    assert result.output.count("no such bucket: models") == 1
    assert result.output.count("failed") == 3


def test_end_that_is_observed_late_is_waited_for(timeline: Timeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def end_late(seconds: float) -> None:
        timeline.ended("a", 104.0, "finished", None, {})

    monkeypatch.setattr(terminal, "_LATE_SECONDS", 60.0)
    monkeypatch.setattr(terminal, "time", SimpleNamespace(monotonic=time.monotonic, sleep=end_late))
    terminal._wait_for_end(timeline)
    assert timeline.state()["steps"][0]["outcome"] == "finished"


def test_start_without_an_end_is_not_waited_for(timeline: Timeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "_LATE_SECONDS", 0.0)
    terminal._wait_for_end(timeline)
    assert timeline.state()["steps"][0]["outcome"] == "running"


def test_of_many_nodes_only_those_not_ready_are_shown() -> None:
    timeline = Timeline(RunIdentity.fresh("n", {}))
    timeline.started(step("whole", None, "cluster", "c"))
    for number in range(500):
        timeline.started(step(f"{number}", "whole", "node", f"node-{number}"))
        timeline.ended(f"{number}", 101.0, "finished" if number != 321 else "died", "its raylet died", {})
    tree = drawn(timeline)
    assert "500 nodes: 499 ready, 0 starting, 1 failed" in tree
    assert "node-321" in tree
    assert len(tree.splitlines()) < 20


def test_watch_prints_the_steps_worth_a_line_until_ready(timeline: Timeline, service: Server) -> None:
    timeline.ended("c", 107.0, "finished", None, {})
    timeline.ended("b", 100.00005, "finished", None, {})
    timeline.ended("a", 108.0, "finished", None, {})
    result = watch(service.url, "--until-ready")
    assert result.exit_code == 0
    assert result.output.splitlines() == ["✓ node n  8 s", "✓ download org/llama  7 s"]


def test_watch_prints_that_a_quick_start_is_ready(timeline: Timeline, service: Server) -> None:
    for id_ in ("c", "b", "a"):
        timeline.ended(id_, 100.00005, "finished", None, {})
    result = watch(service.url, "--until-ready")
    assert (result.exit_code, result.output.startswith("✓ node n")) == (0, True)


def test_watch_prints_what_is_stuck(timeline: Timeline, service: Server) -> None:
    timeline.set_stuck([{"step": "c", "reason": "no byte read for 60 s"}])
    timeline.close()
    assert "Stuck: look at download org/llama, no byte read for 60 s\n" in watch(service.url).output


def test_the_time_remaining_counts_down_on_the_clock_of_the_service(timeline: Timeline, service: Server) -> None:
    timeline.expect({"seconds": 30.0, "low": 5.0, "high": 60.0, "runs": 3, "basis": "same"})
    timeline.close()
    start = RemoteStart(service.url)
    assert start.remaining(time.time()) is None
    list(start.changes())
    left = start.remaining(start.about["now"] - start.offset + 10.0)
    assert left is not None
    assert (left["seconds"], left["low"], left["runs"]) == (pytest.approx(20, abs=8), 0.0, 3)


def test_the_tree_begins_with_the_state_the_time_remaining_and_the_step_to_look_at(timeline: Timeline) -> None:
    steps = {each["id"]: each for each in timeline.state()["steps"]}
    console = Console(file=io.StringIO(), width=120)
    remaining = {"seconds": 14.0, "low": 11.0, "high": 21.0, "runs": 5, "basis": "same"}
    console.print(live_tree(steps, 110.0, remaining))
    assert isinstance(console.file, io.StringIO)
    first, second, *_ = console.file.getvalue().splitlines()
    expected = "Starting, about 14 s left (11 s to 21 s): it waits for download org/llama, 10 s so far"
    assert (first, second) == (expected, "● node n  10 s")


def test_watch_of_a_failed_start_exits_with_1(timeline: Timeline, service: Server) -> None:
    timeline.ended("a", 108.0, "failed", "no such model", {})
    result = watch(service.url, "--until-ready")
    assert result.exit_code == 1
    assert "failed: no such model" in result.output


def test_watch_ends_when_the_start_closes(timeline: Timeline, service: Server) -> None:
    timeline.ended("a", time.time(), "finished", None, {})
    timeline.close()
    assert watch(service.url).exit_code == 0


def test_a_url_that_cannot_be_reached_is_named() -> None:
    result = watch("127.0.0.1:1")
    assert result.exit_code == 1
    assert "cannot connect to http://127.0.0.1:1: Connection refused. " in result.output
    assert "Traceback" not in result.output


def test_a_follower_waits_for_the_service_and_passes_changes_on(timeline: Timeline) -> None:
    port = free_port()
    names: list[str] = []
    follower = Follower(
        RemoteStart(f"http://127.0.0.1:{port}"),
        lambda steps: names.extend(step["name"] for step in steps),
        reconnect_seconds=0.01,
    )
    served = Server(partial(build_app, Metrics("1"), Status(), timeline), port=port)
    served.start()
    try:
        wait_until(lambda: names, "the follower has received the steps")
    finally:
        follower.close()
        timeline.close()
        served.close()


def test_the_start_of_a_node_and_the_notable_end_of_a_step_are_announced_once() -> None:
    start = RemoteStart("http://nowhere")
    node = {"id": "n", "kind": "node", "outcome": "running", "start": 1.0}
    download = {"id": "c", "kind": "download", "outcome": "running", "start": 1.0}
    assert list(start.announced([node, download])) == [node]
    assert list(start.announced([node, download | {"done": 5}])) == []
    ended = download | {"outcome": "finished", "end": 2.0}
    assert list(start.announced([ended])) == [ended]
    assert list(start.announced([ended])) == []
    assert list(start.announced([ended | {"id": "quick", "end": 1.00005}])) == []
    failed = ended | {"id": "failed", "end": 1.00005, "outcome": "failed"}
    assert list(start.announced([failed])) == [failed]


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "no url at all"])
def test_watch_uses_no_proxy_for_this_machine(
    timeline: Timeline, service: Server, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    timeline.ended("a", 108.0, "finished", None, {})
    assert watch(service.url, "--until-ready").exit_code == 0


def test_watch_through_a_proxy_that_cannot_be_used_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "socks9://127.0.0.1:9")
    result = watch("http://192.0.2.1:9464")
    assert result.exit_code == 1
    assert "cannot use http://192.0.2.1:9464" in result.output


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:9464", True),
        ("http://127.8.9.1", True),
        ("http://localhost:1", True),
        ("http://[::1]:9464", True),
        ("http://0.0.0.0:9464", True),
        ("http://localhost.example", False),
        ("http://10.0.0.1", False),
        ("http://[", False),
    ],
)
def test_a_url_of_this_machine_is_recognized(url: str, *, expected: bool) -> None:
    assert is_loopback(url) is expected


@pytest.mark.parametrize(
    ("token", "own", "is_read"),
    [(None, None, False), (None, "own-token", True), ("t0ken-t0ken", "own-token", True), ("t0ken-t0ken", None, False)],
)
def test_the_process_that_started_a_service_reads_it_with_a_token_of_its_own(
    token: str | None, own: str | None, is_read: bool
) -> None:
    timeline = Timeline(RunIdentity.fresh("n", {}))
    timeline.close()
    access = Access(token=token, own_token=own)
    service = Server(partial(build_app, Metrics("1"), Status(), timeline), "0.0.0.0", access=access)
    service.start()
    try:
        start = RemoteStart(service.url, own)
        if is_read:
            assert list(start.changes()) == [[], []]
        else:
            with pytest.raises(WatchError, match="PHASEBUS_TOKEN"):
                list(start.changes())
    finally:
        service.close()


def test_evicted_steps_are_removed_from_a_remote_start() -> None:
    start = RemoteStart("http://nowhere")
    started = {"id": "a", "kind": "node", "name": "n", "outcome": "running"}
    start._update("state", {"now": 1.0, "steps": [started]})
    start._update("change", {"now": 1.0, "steps": [], "removed": ["a", "b"]})
    assert start.steps == {}
