"""The state that a hub has of a cluster, from the lines of the nodes' journals, without Ray."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import httpx
import pytest
from starlette.testclient import TestClient

from phasebus.initializer.cluster.hub.app import build_hub_app
from phasebus.initializer.cluster.hub.state import ClusterState, TooManyNodesError
from phasebus.telemetry.history import Configuration
from phasebus.telemetry.journal import journal_path
from phasebus.telemetry.stuck import StuckStep, StuckSteps
from tests.support.journal_lines import begun, ended, line, progressed
from tests.support.runs import run_of, step, write_journal
from tests.support.waiting import wait_until

NODE, PHASE, OTHER, CLUSTER = "a" * 16, "b" * 16, "c" * 16, "d" * 16
START = line("JournalOpened", host="h", format=1) + begun(NODE, "node", "node-0", model="m")
START += begun(PHASE, "phase", "download")
END = ended(PHASE, "phase", "download") + ended(NODE, "node", "node-0", model="m")


def of_another_node(lines: bytes) -> bytes:
    return lines.replace(NODE.encode(), b"1" * 16).replace(PHASE.encode(), b"2" * 16)


def sample(cluster: ClusterState, name: str, **labels: str) -> float | None:
    cluster.refresh()
    return cluster.metrics.registry.get_sample_value(name, labels)


def client_of(cluster: ClusterState) -> TestClient:
    return TestClient(build_hub_app(cluster, threading.Lock()))


@pytest.mark.parametrize("path", ["/metrics", "/readyz", "/state", "/sd"])
def test_a_request_that_waits_for_the_receiver_delays_no_probe(path: str) -> None:
    lock = threading.Lock()
    app = build_hub_app(ClusterState(), lock)
    released_anyway = threading.Timer(20, lock.release)  # so that a failure is no hang

    async def answered_while_locked() -> bool:
        transport = httpx.ASGITransport(app)
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://hub") as hub,
            anyio.create_task_group() as others,
        ):
            others.start_soon(hub.get, path)
            await anyio.wait_all_tasks_blocked()
            answer = await hub.get("/livez")
            waited = released_anyway.finished.is_set()
            released_anyway.cancel()
            if not waited:
                lock.release()
        return answer.status_code == 200 and not waited

    lock.acquire()
    released_anyway.start()
    assert anyio.run(answered_while_locked)


def test_a_node_is_followed_from_phase_to_phase_until_it_is_ready() -> None:
    cluster = ClusterState()
    cluster.receive("node-0", 0, START, target="127.0.0.1:1")
    node = cluster.nodes["node-0"]
    assert (node.status, node.phase) == ("starting", "download")
    assert sample(cluster, "phasebus_cluster_node_phase", node="node-0", phase="download") == 1
    assert sample(cluster, "phasebus_cluster_phase_in_progress", phase="download") == 1
    cluster.receive("node-0", len(START), END)
    assert (node.status, node.phase) == ("ready", None)
    assert sample(cluster, "phasebus_cluster_node_phase", node="node-0", phase="download") is None
    assert sample(cluster, "phasebus_cluster_phase_in_progress", phase="download") == 0
    assert sample(cluster, "phasebus_cluster_phase_duration_seconds_sum", phase="download") == 2
    assert sample(cluster, "phasebus_cluster_node_startup_duration_seconds_count", model="m") == 1
    assert sample(cluster, "phasebus_cluster_node_startup_seconds", model="m", node="node-0") == 2
    assert sample(cluster, "phasebus_cluster_node_events_total", node="node-0") == 5


def test_of_phases_that_run_side_by_side_the_longest_running_is_shown() -> None:
    cluster = ClusterState()
    cluster.receive("node-0", 0, START + begun(OTHER, "phase", "engine") + ended(OTHER, "phase", "engine"))
    assert cluster.nodes["node-0"].phase == "download"


def test_lines_from_an_unexpected_offset_are_ignored() -> None:
    cluster = ClusterState()
    assert cluster.receive("node-0", 10, START) == 0
    assert cluster.receive("node-0", 0, START) == len(START)
    assert cluster.receive("node-0", 0, START) == len(START)
    assert sample(cluster, "phasebus_cluster_node_events_total", node="node-0") == 3


def test_stuck_steps_of_all_nodes_are_on_the_page_and_in_the_metrics_until_they_go_on() -> None:
    def stuck(*steps: str) -> bytes:
        found = [StuckStep(step=step, name=step, process="p", pid=1, running_seconds=9, reason="r") for step in steps]
        return line("StuckSteps", stuck=StuckSteps(steps=tuple(found)).plain())

    cluster = ClusterState()
    cluster.receive("node-0", 0, START + stuck(PHASE))
    cluster.receive("node-1", 0, of_another_node(START + stuck(PHASE)))
    assert [step["step"] for step in cluster.timeline.state()["stuck"]] == [PHASE, "2" * 16]
    assert sample(cluster, "phasebus_cluster_stuck_steps", kind="phase", step="download") == 2
    cluster.receive("node-0", len(START + stuck(PHASE)), stuck())
    assert [step["step"] for step in cluster.timeline.state()["stuck"]] == ["2" * 16]
    assert sample(cluster, "phasebus_cluster_stuck_steps", kind="phase", step="download") == 1


def test_steps_that_the_driver_closes_count_once_and_for_the_lost_node() -> None:
    cluster = ClusterState()
    cluster.receive("node-0", 0, START)
    about = {"node": "node-0"}
    closing = begun(OTHER, "phase", "x", retold=True, **about) + ended(OTHER, "phase", "x", retold=True, **about)
    for span, kind, name in ((PHASE, "phase", "download"), (NODE, "node", "node-0")):
        closing += begun(span, kind, name, lost=True, model="m", **about)
        closing += ended(span, kind, name, "died", lost=True, model="m", **about)
    cluster.receive("driver", 0, closing)
    assert (cluster.nodes["node-0"].status, cluster.nodes["node-0"].error) == ("lost", "because")
    assert cluster.nodes["driver"].status == "starting"
    assert sample(cluster, "phasebus_cluster_phases_total", phase="download", outcome="died") == 1
    assert sample(cluster, "phasebus_cluster_phases_total", phase="x", outcome="finished") is None
    assert sample(cluster, "phasebus_cluster_phase_in_progress", phase="download") == 0


def test_a_node_that_was_lost_before_its_first_message_is_listed_as_lost() -> None:
    cluster = ClusterState()
    lost = {"lost": True, "node": "node-7"}
    cluster.receive("driver", 0, begun(NODE, "node", "node-7", **lost) + ended(NODE, "node", "node-7", "died", **lost))
    assert cluster.nodes["node-7"].status == "lost"


def test_the_running_steps_of_a_node_are_those_without_an_end() -> None:
    cluster = ClusterState()
    cluster.receive("node-0", 0, START + ended(PHASE, "phase", "download"))
    assert [(step.id, step.attributes) for step in cluster.running_steps("node-0")] == [(NODE, {"model": "m"})]
    assert cluster.running_steps("unknown") == ()


def test_steps_that_run_when_the_journal_closes_are_no_longer_in_progress() -> None:
    cluster = ClusterState()
    cluster.receive("node-0", 0, START + line("JournalClosed"))
    assert sample(cluster, "phasebus_cluster_phase_in_progress", phase="download") == 0


def test_events_that_a_journals_buffer_dropped_are_counted_once() -> None:
    cluster = ClusterState()
    for dropped in (0, 3, 3, 5):
        cluster.receive("node-0", 0, b"", dropped=dropped)
    assert sample(cluster, "phasebus_cluster_node_events_dropped_total", node="node-0") == 5


def test_the_start_time_is_that_of_the_first_journal() -> None:
    cluster = ClusterState()
    cluster.receive("node-0", 0, line("JournalOpened", format=1, time_ns=7 * 10**9))
    cluster.receive("driver", 0, line("JournalOpened", format=1, time_ns=5 * 10**9))
    assert sample(cluster, "phasebus_cluster_start_timestamp_seconds") == 5


def test_the_hub_is_ready_with_the_cluster_and_lists_the_nodes_for_prometheus() -> None:
    cluster = ClusterState()
    client = client_of(cluster)
    assert client.get("/readyz").status_code == 503
    cluster.receive("driver", 0, begun(CLUSTER, "cluster", "c"))
    cluster.receive("node-0", 0, START + END, target="10.0.0.1:9464")
    cluster.receive("node-1", 0, of_another_node(START), target="10.0.0.2:9464")
    assert client.get("/readyz").status_code == 503
    assert client.get("/sd").json() == [
        {"targets": ["10.0.0.1:9464"], "labels": {"node": "node-0"}},
        {"targets": ["10.0.0.2:9464"], "labels": {"node": "node-1"}},
    ]
    cluster.receive("driver", len(begun(CLUSTER, "cluster", "c")), ended(CLUSTER, "cluster", "c"))
    assert client.get("/readyz").status_code == 200
    assert 'phasebus_cluster_nodes{state="starting"} 1.0' in client.get("/metrics").text
    assert client.get("/state").json()["nodes"][1] == {
        "name": "node-1",
        "status": "starting",
        "phase": "download",
        "host": "h",
        "metrics": "10.0.0.2:9464",
        "url": None,
    }
    assert client.get("/livez").text == "ok\n"


@pytest.mark.parametrize(
    ("url", "scheme", "address"),
    [
        ("http://10.0.0.1:8000", "http", "10.0.0.1:8000"),
        ("https://[fd00::1]:8001", "https", "[fd00::1]:8001"),
        ("http://10.0.0.1:8000/../x", None, None),
        ("ftp://10.0.0.1:8000", None, None),
        (8000, None, None),
    ],
)
def test_hub_lists_the_server_of_an_engine_in_a_job_with_the_engines_name(
    url: object, scheme: str | None, address: str | None
) -> None:
    cluster = ClusterState()
    client = client_of(cluster)
    served = begun(OTHER, "engine", "vllm") + ended(OTHER, "engine", "vllm", url=url)
    cluster.receive("node-0", 0, START + served, target="10.0.0.1:9464")
    own = {"targets": ["10.0.0.1:9464"], "labels": {"node": "node-0"}}
    if address is None:
        assert client.get("/sd").json() == [own]
        assert client.get("/state").json()["nodes"][0]["url"] is None
    else:
        labels = {"node": "node-0", "job": "vllm", "__scheme__": scheme}
        assert client.get("/sd").json() == [own, {"targets": [address], "labels": labels}]
        assert client.get("/state").json()["nodes"][0]["url"] == url


def test_a_ready_node_without_messages_is_lost_until_the_next_message() -> None:
    now = 100.0
    cluster = ClusterState(clock=lambda: now)
    client = client_of(cluster)
    whole = begun(CLUSTER, "cluster", "c") + ended(CLUSTER, "cluster", "c", nodes=1)
    cluster.receive("driver", 0, whole)
    cluster.receive("node-0", 0, START + END, target="10.0.0.1:9464")
    assert client.get("/readyz").status_code == 200
    now += 11
    cluster.receive("driver", len(whole), b"")
    assert client.get("/readyz").status_code == 503
    described = client.get("/state").json()
    assert (described["status"], described["nodes"][0]["status"]) == ("degraded", "lost")
    assert described["nodes"][0]["error"] == "no message for 10 s"
    assert client.get("/sd").json() == []
    metrics = client.get("/metrics").text
    assert 'phasebus_cluster_nodes{state="lost"} 1.0' in metrics
    assert 'phasebus_cluster_node_ready{node="node-0"} 0.0' in metrics
    assert "phasebus_cluster_ready 0.0" in metrics
    cluster.receive("node-0", len(START + END), b"", target="10.0.0.1:9464")
    assert client.get("/readyz").status_code == 200
    assert 'phasebus_cluster_node_ready{node="node-0"} 1.0' in client.get("/metrics").text


def test_ready_cluster_that_ends_is_stopping_and_not_ready() -> None:
    cluster = ClusterState()
    client = client_of(cluster)
    cluster.receive("driver", 0, begun(CLUSTER, "cluster", "c") + ended(CLUSTER, "cluster", "c", nodes=1))
    cluster.receive("node-0", 0, START + END)
    assert client.get("/readyz").status_code == 200
    cluster.stopping = True
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (503, "stopping")
    assert sample(cluster, "phasebus_cluster_ready") == 0


def test_a_node_whose_engine_died_is_failed_and_the_cluster_degraded() -> None:
    cluster = ClusterState()
    client = client_of(cluster)
    cluster.receive("driver", 0, begun(CLUSTER, "cluster", "c") + ended(CLUSTER, "cluster", "c", nodes=1))
    died = line("EngineDied", phase="engine_died", error="the engine has died: because")
    cluster.receive("node-0", 0, START + END + died)
    assert client.get("/readyz").status_code == 503
    described = client.get("/state").json()
    assert (described["status"], described["nodes"][0]["status"]) == ("degraded", "failed")
    assert described["nodes"][0]["error"] == "the engine has died: because"


def test_a_lost_node_that_was_started_again_does_not_degrade_the_cluster() -> None:
    cluster = ClusterState()
    cluster.receive("node-0", 0, START)
    cluster.receive("node-0-try2", 0, of_another_node(START + END))
    lost = {"lost": True, "node": "node-0"}
    closing = begun(NODE, "node", "node-0", **lost) + ended(NODE, "node", "node-0", "died", **lost)
    whole = begun(CLUSTER, "cluster", "c") + closing + ended(CLUSTER, "cluster", "c", nodes=1)
    cluster.receive("driver", 0, whole)
    assert client_of(cluster).get("/readyz").status_code == 200


def test_the_hub_serves_a_page_of_the_whole_cluster() -> None:
    cluster = ClusterState()
    cluster.receive("node-0", 0, START + progressed(PHASE, "phase", "download", 5, 10))
    client = client_of(cluster)
    assert "<html" in client.get("/").text
    timeline = client.get("/timeline").json()
    assert (timeline["run"], timeline["trace"]) == ("r", "f" * 32)
    assert [(step["kind"], step["name"], step["node"]) for step in timeline["steps"]] == [
        ("node", "node-0", "node-0"),
        ("phase", "download", "node-0"),
    ]
    assert timeline["steps"][1]["done"] == 5


HOSTILE = [
    b"\n",
    b"not JSON\n",
    b"[]\n",
    b"[" * 100_000 + b"\n",
    b'{"event": "StepStarted", "span": null, "time_ns": 1}\n',
    begun(NODE, "node", "x").replace(b'"attributes": {}', b'"attributes": []'),
    ended(NODE, "node", "x").replace(b'"seconds": 2.0', b'"seconds": NaN'),
    ended(NODE, "node", "x").replace(b'"seconds": 2.0', b'"seconds": -1'),
    ended(NODE, "node", "x").replace(b'"seconds": 2.0', b'"seconds": 1e999'),
    ended(NODE, "node", "x").replace(b'"finished"', b'"exploded"'),
    ended(NODE, "node", "x").replace(b'"finished"', b'["finished"]'),
    progressed(NODE, "node", "x", 1).replace(b'"done": 1', b'"done": "1"'),
    begun(NODE, "node", "x").replace(b'"node", "name"', b'"no\\ud800de", "name"'),
    b'{"event": "JournalOpened", "format": "1", "time_ns": 1}\n',
    b"\xff\xfe\n",
]


@pytest.mark.parametrize("rejected", HOSTILE)
def test_a_line_that_cannot_be_decoded_is_skipped_counted_and_logged_once(
    rejected: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = ClusterState()
    lines = START + rejected + END
    assert cluster.receive("node-0", 0, lines) == len(lines)
    assert cluster.receive("node-0", len(lines), rejected) == len(lines) + len(rejected)
    assert cluster.nodes["node-0"].status == "ready"
    assert sample(cluster, "phasebus_cluster_node_lines_rejected_total", node="node-0") == 2
    assert [record.message for record in caplog.records if "cannot decode" in record.message] == [
        caplog.records[0].message
    ]


@pytest.mark.parametrize(
    "attributes",
    [
        {"bytes": -1},
        {"bytes": 10**400},
        {"bytes": "many"},
        {"bytes": True, "model": ["a", {"b": 1}]},
        {"model": "\x1b]0;title\x07"},
        {"model": "x" * 100_000},
        {f"key{number}": number for number in range(1_000)},
    ],
)
def test_odd_attributes_leave_the_metrics_the_page_and_the_state_readable(attributes: dict[str, Any]) -> None:
    cluster = ClusterState()
    steps = begun(NODE, "download", "m", **attributes)
    steps += ended(NODE, "download", "m", **attributes)
    cluster.receive("node-0", 0, steps)
    client = client_of(cluster)
    for path in ("/metrics", "/timeline", "/state"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "\x1b" not in answer.text
    assert len(client.get("/metrics").text) < 100_000


def test_a_name_for_every_line_does_not_make_a_series_for_every_line() -> None:
    cluster = ClusterState()
    offset = 0
    for number in range(0, 3_000, 500):
        lines = b"".join(
            begun(f"{each:016x}", "phase", f"phase {each}") + ended(f"{each:016x}", "phase", f"phase {each}")
            for each in range(number, number + 500)
        )
        offset = cluster.receive("node-0", offset, lines)
    text = client_of(cluster).get("/metrics").text
    assert text.count("phasebus_cluster_phase_in_progress{") <= 2_001
    assert 'phasebus_cluster_phase_duration_seconds_count{phase="other"} 1000.0' in text


def test_more_nodes_than_a_hub_keeps_are_rejected() -> None:
    cluster = ClusterState(max_nodes=2)
    for number in range(2):
        cluster.receive(f"node-{number}", 0, b"")
    with pytest.raises(TooManyNodesError, match="the hub keeps 2 nodes"):
        cluster.receive("node-2", 0, b"")


def test_the_start_of_a_cluster_is_forecast_from_earlier_ones() -> None:
    configuration = Configuration.of({"model": "m", "nodes": 2})
    past = run_of(
        step("c", 0, 40, kind="cluster", **configuration.attributes),
        step("node-0", 2, 38, "c", kind="node", node="node-0"),
        step("download", 2, 20, "node-0", node="node-0"),
        run="20260101T000000-aaaa",
        end=40,
    )
    write_journal(journal_path(past.run), past)
    state = ClusterState()
    state._history._seconds = 0.02
    first = line("JournalOpened", host="h", format=1) + begun(CLUSTER, "cluster", "c", **configuration.attributes)
    state.receive("driver", 0, first)
    wait_until(lambda: state.timeline.remaining is not None, "there is a forecast")
    state.receive("node-0", 0, begun(PHASE, "phase", "download"))
    wait_until(lambda: state.timeline.usual_of(PHASE) is not None, "the step has its usual duration")
    remaining = state.describe()["remaining"]
    assert (remaining["runs"], remaining["basis"]) == (1, "same")
    state.receive("driver", len(first), ended(CLUSTER, "cluster", "c"))
    assert state.describe()["remaining"] is None
