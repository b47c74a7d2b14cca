"""Real Ray Serve LLM applications with real vLLM, unforked, with phasebus on them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import psutil
import pytest

from phasebus.initializer.engines.vllm.inside.forkserver.kept import client
from phasebus.initializer.engines.vllm.inside.forkserver.kept.address import Address
from phasebus.telemetry import EngineSpan
from phasebus.telemetry.analysis import unnamed_share
from phasebus.telemetry.journal import JournalError, Run, read_journal
from tests.support.otlp import OtlpBackend
from tests.support.serve_callbacks import SHORTER
from tests.support.serve_llm import SERVER, local_serve, replica_journals, run_application
from tests.support.traces import UNNAMED
from tests.support.waiting import wait_until

pytest.importorskip("vllm")

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Ray, of pydantic, while it is imported
]

_CALLBACKS = [f"tests.support.serve_callbacks:{name}" for name in ("note_phase", "shorten")]
_FETCH_NOTHING = "tests.support.serve_callbacks:fetch_nothing"

_AT_ONCE = {
    "target_ongoing_requests": 1,
    "metrics_interval_s": 1,
    "look_back_period_s": 2,
    "upscale_delay_s": 1,
    "downscale_delay_s": 3600,
}
"""An autoscaling that adds a replica within seconds of load, and takes none away."""


@dataclass(frozen=True, kw_only=True)
class Application:
    """A running application, and what its one replica's start has left."""

    url: str
    folder: Path
    run: Run
    spans: list[EngineSpan]

    def complete(self, prompt: str, tokens: int = 4) -> httpx.Response:
        body = {"model": "tiny", "prompt": prompt, "max_tokens": tokens}
        return httpx.post(f"{self.url}/v1/completions", json=body, timeout=120)


@pytest.fixture(scope="module")
def serve() -> Iterator[int]:
    """A local Ray with Serve; its HTTP port."""
    with local_serve() as port:
        yield port


def start_application(
    name: str,
    port: int,
    folder: Path,
    backend: OtlpBackend,
    scaling: Mapping[str, float],
    callbacks: Sequence[str] = (),
    **fields: Any,
) -> Application:
    run_application(name, folder, backend.http, scaling, callbacks=[*_CALLBACKS, *callbacks], **fields)
    run, spans = finished_run(replica_journals(folder)[0], backend)
    return Application(url=f"http://127.0.0.1:{port}/{name}", folder=folder, run=run, spans=spans)


def finished_run(journal: Path, backend: OtlpBackend) -> tuple[Run, list[EngineSpan]]:
    """The run of a replica's start and its spans, once the journal is complete."""
    wait_until(lambda: is_closed(journal), "the journal is complete", seconds=240)
    run = read_journal(journal)
    return run, backend.spans_of(run)


def ask_fork_server(folder: Path, request: str) -> Mapping[str, Any] | None:
    """The state of the fork server that the replicas with journals in `folder` keep; None without one."""
    address = Address(folder / "runtime")
    try:
        return client.ask(address, request)
    finally:
        address.close()


def is_closed(journal: Path) -> bool:
    try:
        return read_journal(journal).state == "closed"
    except JournalError:  # its first line is being written
        return False


@pytest.fixture(scope="module")
def by_server(serve: int, tmp_path_factory: pytest.TempPathFactory, backend: OtlpBackend) -> Iterator[Application]:
    folder = tmp_path_factory.mktemp("server")
    try:
        yield start_application(
            "server", serve, folder, backend, _AT_ONCE, [_FETCH_NOTHING], server_cls=SERVER, forkserver="keep"
        )
    finally:
        ask_fork_server(folder, "stop")


@pytest.fixture(scope="module")
def by_callback(serve: int, tmp_path_factory: pytest.TempPathFactory, backend: OtlpBackend) -> Application:
    scaling = {"min_replicas": 2}
    return start_application("callback", serve, tmp_path_factory.mktemp("callback"), backend, scaling)


@pytest.fixture(params=["by_server", "by_callback"])
def application(request: pytest.FixtureRequest) -> Application:
    found: Application = request.getfixturevalue(request.param)
    return found


def test_it_answers_and_its_engine_has_the_arguments_that_a_callback_gave_it(application: Application) -> None:
    answer = application.complete("A start-up is")
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["text"]
    too_long = application.complete("word " * SHORTER)
    assert too_long.status_code == 400
    assert str(SHORTER) in too_long.text


def test_the_start_of_the_replica_has_the_phases_in_order_and_all_ended_well(application: Application) -> None:
    phases = [step.name for step in application.run.steps if step.kind == "phase"]
    assert phases == ["pre_initialization", "placement_group", "download", "engine_init", "post_initialization"]
    assert {step.outcome for step in application.run.steps} == {"finished"}
    assert [moment.phase for moment in application.run.moments] == [
        "pre_initialization",
        "post_placement_group",
        "pre_download",
        "post_download",
        "pre_engine_init",
        "post_engine_init",
        "post_initialization",
    ]


def test_the_start_of_the_replica_is_one_trace_with_the_engines_steps_in_it(application: Application) -> None:
    spans = {span.span: span for span in application.spans}
    assert [span.name for span in spans.values() if span.parent is None] == ["serve application"]
    for node in (span for span in spans.values() if span.name == "node init"):
        outward, at = [node.name], node
        while at.parent is not None:
            at = spans[at.parent]
            outward.append(at.name)
        assert outward == ["node init", "serve replica", "serve deployment", "serve application"]
    assert {"ray schedule replica", "ray import serve llm", "import engine"} <= {span.name for span in spans.values()}
    steps = {step.name for step in application.run.steps if step.kind == "engine_step"}
    assert {"load_model", "load_weights", "allocate_kv_cache"} <= steps


def test_a_replica_on_one_node_initializes_that_node_itself(by_callback: Application) -> None:
    """Ray's task writes this line into the output of its own process."""
    output = Path(f"/proc/{first_replica(by_callback).pid}/fd/2").readlink()
    assert "No cloud storage mirror configured" in output.read_text(encoding="utf-8")


def first_replica(application: Application) -> psutil.Process:
    (journal, *_) = sorted(application.folder.glob("runs/*.jsonl"))
    return psutil.Process(json.loads(journal.read_text().partition("\n")[0])["pid"])


def test_processes_of_the_engine_are_forked_from_the_server_of_their_replica(by_callback: Application) -> None:
    replica = first_replica(by_callback)
    parents = {each.name()[:12]: (each.parent() or replica).name() for each in replica.children(recursive=True)}
    assert parents["phasebus for"] == replica.name()
    assert parents["VLLM::Engine"].startswith("phasebus for")
    assert parents["VLLM::Worker"].startswith("phasebus for")


def test_processes_of_the_engine_are_forked_from_a_server_that_stays(by_server: Application) -> None:
    state = ask_fork_server(by_server.folder, "status")
    assert state is not None
    assert state["commands"]
    for command in state["commands"]:  # the fork server of a replica
        names = {each.name()[:12] for each in psutil.Process(command).children()}
        assert {"VLLM::Engine", "VLLM::Worker"} <= names


def test_the_fork_server_of_a_bus_server_begins_before_ray_serve_llm_is_imported(by_server: Application) -> None:
    state = ask_fork_server(by_server.folder, "status")
    assert state is not None
    (imports,) = (step for step in by_server.run.steps if step.name == "import_serve_llm")
    assert imports.end_ns is not None
    assert psutil.Process(state["pid"]).create_time() < imports.end_ns / 1e9


def test_all_replicas_of_a_start_are_in_one_trace(by_callback: Application) -> None:
    replicas = [span for span in by_callback.spans if span.name == "serve replica"]
    assert len(replicas) == 2
    assert len({span.resource["process.pid"] for span in replicas}) == 2
    (deployment,) = {span.parent for span in replicas}
    assert deployment in {span.span for span in by_callback.spans if span.name == "serve deployment"}


def test_nearly_all_of_the_start_of_the_replica_has_a_named_step(by_server: Application) -> None:
    assert unnamed_share(by_server.run) <= UNNAMED
    assert {"init_node", "init_serve_engine"} <= {step.name for step in by_server.run.steps if step.kind == "ray"}


def test_a_replica_that_autoscaling_adds_has_a_trace_and_metrics_of_its_own(
    by_server: Application, backend: OtlpBackend
) -> None:
    first, second = scale_up(by_server)
    run, spans = finished_run(second, backend)
    assert (run.run, run.trace) != (by_server.run.run, by_server.run.trace)
    assert run.node != by_server.run.node
    phases = [step.name for step in run.steps if step.kind == "phase"]
    assert phases == ["pre_initialization", "placement_group", "download", "engine_init", "post_initialization"]
    assert {step.outcome for step in run.steps} == {"finished"}
    known = {span.span for span in spans}
    assert [span.name for span in spans if span.parent not in known] == ["serve replica"]
    (root,) = (each for each in backend.exported(run.trace) if each.span.name == "serve replica")
    (link,) = root.span.links
    assert link.trace_id.hex() == by_server.run.trace
    assert link.span_id.hex() in {span.span for span in by_server.spans if span.name == "serve deployment"}
    for journal in (first, second):
        assert "phasebus_ready 1.0" in metrics_of(journal)
    assert by_server.complete("A start-up is").status_code == 200
    state = ask_fork_server(by_server.folder, "status")
    assert state is not None
    assert (state["forks"], len(state["commands"])) == (2, 2)


def scale_up(application: Application) -> tuple[Path, Path]:
    """Ask until a second replica starts; return the journals of the first and the second."""

    (first,) = (path for path in replica_journals(application.folder) if application.run.run in path.name)
    enough = Event()

    def ask() -> None:
        while not enough.is_set():
            assert application.complete("A start-up is", tokens=64).status_code == 200

    with ThreadPoolExecutor(8) as clients:
        asked = [clients.submit(ask) for _ in range(8)]
        try:
            wait_until(lambda: len(replica_journals(application.folder)) > 1, "a second replica starts", seconds=400)
        finally:
            enough.set()
    for each in asked:
        each.result()
    (second,) = (path for path in replica_journals(application.folder) if path != first)
    return first, second


def metrics_of(journal: Path) -> str:
    """The /metrics of the replica of `journal`, on whichever of its process's ports that is."""
    with journal.open(encoding="utf-8") as file:
        process = psutil.Process(json.loads(file.readline())["pid"])
    for connection in process.net_connections("tcp4"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.ip == "127.0.0.1":
            try:
                answer = httpx.get(f"http://127.0.0.1:{connection.laddr.port}/metrics", timeout=60)
            except httpx.TransportError:  # one of Ray's own
                continue
            if "phasebus_ready" in answer.text:
                return answer.text
    raise AssertionError(f"{process} serves no metrics of ours")
