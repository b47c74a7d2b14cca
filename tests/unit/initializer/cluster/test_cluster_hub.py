"""The hub's board, and the sender that tells it, without Ray."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from phasebus.initializer.cluster.hub.app import build_hub_app
from phasebus.initializer.cluster.hub.sender import JournalSender
from phasebus.initializer.cluster.hub.state import Board
from tests.support.waiting import wait_until


def line(event: str, **fields: Any) -> bytes:
    return (
        json.dumps({"event": event, "run": "r", "node": "n", "trace": "f" * 32, "time_ns": 1, **fields}).encode()
        + b"\n"
    )


def begun(span: str, kind: str, name: str, **attributes: Any) -> bytes:
    return line("StepStarted", span=span, parent=None, kind=kind, name=name, attributes=attributes)


def ended(span: str, kind: str, name: str, outcome: str = "finished", **attributes: Any) -> bytes:
    fields = {} if outcome == "finished" else {"error": {"type": "E", "message": "because"}}
    return line(
        "E", span=span, parent=None, kind=kind, name=name, attributes=attributes, seconds=2.0, outcome=outcome, **fields
    )


START = line("JournalOpened", host="h") + begun("a", "node", "node-0", model="m") + begun("b", "phase", "download")
END = ended("b", "phase", "download") + ended("a", "node", "node-0", model="m")


def sample(board: Board, name: str, **labels: str) -> float | None:
    board.look()
    return board.metrics.registry.get_sample_value(name, labels)


def test_a_node_is_followed_from_phase_to_phase_until_it_is_ready() -> None:
    board = Board()
    board.take("node-0", 0, START, target="127.0.0.1:1")
    assert (board.nodes["node-0"].status, board.nodes["node-0"].phase) == ("starting", "download")
    assert sample(board, "phasebus_cluster_node_phase", node="node-0", phase="download") == 1
    assert sample(board, "phasebus_phase_in_progress", phase="download") == 1
    board.take("node-0", len(START), END)
    assert (board.nodes["node-0"].status, board.nodes["node-0"].phase) == ("ready", None)
    assert sample(board, "phasebus_cluster_node_phase", node="node-0", phase="download") is None
    assert sample(board, "phasebus_phase_in_progress", phase="download") == 0
    assert sample(board, "phasebus_phase_duration_seconds_sum", phase="download", outcome="finished") == 2
    assert sample(board, "phasebus_node_startup_duration_seconds_count", model="m", outcome="finished") == 1
    assert sample(board, "phasebus_cluster_node_events_total", node="node-0") == 5


def test_lines_from_elsewhere_than_where_the_last_ones_ended_are_not_taken() -> None:
    board = Board()
    assert board.take("node-0", 10, START) == 0
    assert board.take("node-0", 0, START) == len(START)
    assert board.take("node-0", 0, START) == len(START)
    assert sample(board, "phasebus_cluster_node_events_total", node="node-0") == 3


def test_what_the_driver_closes_counts_for_the_lost_node_and_what_it_tells_again_does_not() -> None:
    board = Board()
    board.take("node-0", 0, START)
    closing = begun("c", "phase", "x", retold=True) + ended("c", "phase", "x", retold=True)
    closing += begun("b", "phase", "download", lost=True) + ended("b", "phase", "download", "died", lost=True)
    closing += begun("a", "node", "node-0", model="m") + ended("a", "node", "node-0", "died", model="m")
    board.take("driver", 0, closing)
    assert (board.nodes["node-0"].status, board.nodes["node-0"].error) == ("lost", "because")
    assert sample(board, "phasebus_phase_duration_seconds_count", phase="download", outcome="died") == 1
    assert sample(board, "phasebus_phase_duration_seconds_count", phase="x", outcome="finished") is None
    assert sample(board, "phasebus_phase_in_progress", phase="download") == 0


def test_events_that_a_journal_had_no_room_for_are_counted_once() -> None:
    board = Board()
    for dropped in (0, 3, 3, 5):
        board.take("node-0", 0, b"", dropped=dropped)
    assert sample(board, "phasebus_cluster_node_events_dropped_total", node="node-0") == 5


def test_it_is_ready_when_the_cluster_is_and_lists_the_nodes_for_prometheus() -> None:
    board = Board()
    client = TestClient(build_hub_app(board, threading.Lock()))
    assert client.get("/readyz").status_code == 503
    board.take("driver", 0, begun("d", "cluster", "c"))
    board.take("node-0", 0, START + END, target="10.0.0.1:9464")
    board.take("node-1", 0, START.replace(b'"a"', b'"x"').replace(b'"b"', b'"y"'), target="10.0.0.2:9464")
    assert client.get("/readyz").status_code == 503
    assert client.get("/sd").json() == [
        {"targets": ["10.0.0.1:9464"], "labels": {"node": "node-0"}},
        {"targets": ["10.0.0.2:9464"], "labels": {"node": "node-1"}},
    ]
    board.take("driver", len(begun("d", "cluster", "c")), ended("d", "cluster", "c"))
    assert client.get("/readyz").status_code == 200
    assert 'phasebus_cluster_nodes{state="starting"} 1.0' in client.get("/metrics").text
    assert client.get("/state").json()["nodes"][1] == {
        "name": "node-1",
        "status": "starting",
        "phase": "download",
        "host": "h",
        "metrics": "10.0.0.2:9464",
    }
    assert client.get("/livez").text == "ok\n"


def test_a_ready_node_that_falls_silent_is_lost_until_it_is_heard_of_again() -> None:
    now = 100.0
    board = Board(clock=lambda: now)
    client = TestClient(build_hub_app(board, threading.Lock()))
    whole = begun("d", "cluster", "c") + ended("d", "cluster", "c", nodes=1)
    board.take("driver", 0, whole)
    board.take("node-0", 0, START + END, target="10.0.0.1:9464")
    assert client.get("/readyz").status_code == 200
    now += 11
    board.take("driver", len(whole), b"")
    assert client.get("/readyz").status_code == 503
    state = client.get("/state").json()
    assert (state["status"], state["nodes"][0]["status"]) == ("degraded", "lost")
    assert state["nodes"][0]["error"] == "nothing has been heard of it for 10 s"
    assert client.get("/sd").json() == []
    metrics = client.get("/metrics").text
    assert 'phasebus_cluster_nodes{state="lost"} 1.0' in metrics
    assert 'phasebus_cluster_node_ready{node="node-0"} 0.0' in metrics
    assert "phasebus_ready 0.0" in metrics
    board.take("node-0", len(START + END), b"", target="10.0.0.1:9464")
    assert client.get("/readyz").status_code == 200
    assert 'phasebus_cluster_node_ready{node="node-0"} 1.0' in client.get("/metrics").text


def test_a_node_whose_engine_has_died_is_failed_and_the_cluster_degraded() -> None:
    board = Board()
    client = TestClient(build_hub_app(board, threading.Lock()))
    board.take("driver", 0, begun("d", "cluster", "c") + ended("d", "cluster", "c", nodes=1))
    died = line("EngineDied", phase="engine_died", error="the engine has died: because")
    board.take("node-0", 0, START + END + died)
    assert client.get("/readyz").status_code == 503
    state = client.get("/state").json()
    assert (state["status"], state["nodes"][0]["status"]) == ("degraded", "failed")
    assert state["nodes"][0]["error"] == "the engine has died: because"


def test_a_lost_node_that_was_started_again_does_not_degrade_the_cluster() -> None:
    board = Board()
    client = TestClient(build_hub_app(board, threading.Lock()))
    board.take("node-0", 0, START)
    again = (START + END).replace(b'"a"', b'"x"').replace(b'"b"', b'"y"')
    board.take("node-0-try2", 0, again)
    closing = begun("a", "node", "node-0", lost=True) + ended("a", "node", "node-0", "died", lost=True)
    board.take("driver", 0, begun("d", "cluster", "c") + closing + ended("d", "cluster", "c", nodes=1))
    assert client.get("/readyz").status_code == 200


class Hub:
    """A hub that may be away, and may forget."""

    def __init__(self) -> None:
        self.taken = b""
        self.away = False
        self.calls = 0

    def send(self, offset: int, lines: bytes) -> int:
        self.calls += 1
        if self.away:
            raise ConnectionError("away\nand more of it")
        if offset == len(self.taken):
            self.taken += lines
        return len(self.taken)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "run.jsonl"
    path.write_bytes(START)
    return path


@pytest.fixture
def hub(journal: Path) -> Iterator[Hub]:
    hub = Hub()
    sender = JournalSender(journal, hub.send, pause=0.01)
    sender.start()
    yield hub
    sender.close()


def test_a_growing_journal_arrives_whole_and_half_lines_wait(journal: Path, hub: Hub) -> None:
    wait_until(lambda: hub.taken == START, "the first lines have arrived")
    with journal.open("ab") as file:
        file.write(END + b'{"half')
        file.flush()
        wait_until(lambda: hub.taken == START + END, "the next ones have arrived")


def test_a_hub_that_forgot_everything_is_told_everything(journal: Path, hub: Hub) -> None:
    wait_until(lambda: hub.taken == START, "the first lines have arrived")
    hub.taken = b""
    wait_until(lambda: hub.taken == START, "they have arrived again", seconds=20)


def test_a_hub_that_is_away_is_told_later_and_that_is_said_once(
    journal: Path, hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    wait_until(lambda: hub.taken == START, "the first lines have arrived")
    hub.away = True
    hub.taken = b""
    calls = hub.calls
    with journal.open("ab") as file:
        file.write(END)
    wait_until(lambda: hub.calls > calls + 3, "it was tried again")
    hub.away = False
    wait_until(lambda: hub.taken == START + END, "everything has arrived")
    assert caplog.text.count("the hub cannot be reached (away); the start goes on") == 1


def test_what_came_last_is_sent_when_it_is_closed(journal: Path) -> None:
    hub = Hub()
    sender = JournalSender(journal, hub.send, pause=60)
    sender.start()
    wait_until(lambda: hub.taken == START, "the first lines have arrived")
    with journal.open("ab") as file:
        file.write(END)
    sender.close(60)
    assert hub.taken == START + END


def test_the_hub_serves_a_page_of_the_whole_cluster() -> None:
    board = Board()
    board.take("node-0", 0, START)
    client = TestClient(build_hub_app(board, threading.Lock()))
    assert "<html" in client.get("/").text
    told = client.get("/timeline").json()
    assert (told["run"], told["trace"]) == ("r", "f" * 32)
    assert [(step["kind"], step["name"]) for step in told["steps"]] == [("node", "node-0"), ("phase", "download")]
