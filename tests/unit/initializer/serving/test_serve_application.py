"""The start of a Serve LLM application as one trace, with what Serve answers made up."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from phasebus.initializer.integrations.ray_serve.application import JOINED, ApplicationStart
from phasebus.initializer.integrations.ray_serve.first_line import FIRST_LINE_NS
from phasebus.initializer.integrations.ray_serve.joining import join_application, observe_shared
from phasebus.initializer.integrations.ray_serve.origin import ReplicaOrigin, replica_origin
from phasebus.initializer.integrations.ray_serve.replica import ENGINE_START, ReplicaStart
from phasebus.initializer.integrations.ray_serve.shared_trace import SharedTrace
from phasebus.initializer.integrations.ray_serve.status import ApplicationState
from phasebus.telemetry import RunIdentity, Telemetry
from tests.support.otlp import OtlpSink, otlp_sink
from tests.support.traces import ExportedSpan, assert_is_one_trace, exported_spans
from tests.support.waiting import wait_until


@pytest.fixture
def anyio_backend() -> str:
    """Ray Serve runs on asyncio."""
    return "asyncio"


@pytest.fixture
def sink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OtlpSink]:
    monkeypatch.setenv("PHASEBUS_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("TRACEPARENT", raising=False)
    with otlp_sink() as sink:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.url)
        before = dict(os.environ)
        yield sink
        os.environ.clear()  # a replica changes the environment of its process
        os.environ.update(before)


def state(status: str, deployment: str = "UPDATING", name: str = "BusServer:tiny") -> ApplicationState:
    return ApplicationState(
        name="app", status=status, message="out of GPUs", deployed_ns=time.time_ns(), deployments={name: deployment}
    )


class Serve:
    """Answers with one state after the other, and then with the last one."""

    def __init__(self, *states: Sequence[ApplicationState] | None) -> None:
        self._states = list(states)

    def __call__(self) -> Sequence[ApplicationState] | None:
        return self._states.pop(0) if len(self._states) > 1 else self._states[0]


def spans_of(sink: OtlpSink, start: ApplicationStart) -> dict[str, ExportedSpan]:
    wait_until(lambda: start.ended, "the start has ended")
    spans = exported_spans(export.content for export in sink.exports)
    assert_is_one_trace(spans, ended_ns=time.time_ns())
    return {each.span.name: each for each in spans}


def test_application_is_one_trace_from_the_build_until_it_runs(sink: OtlpSink) -> None:
    start = ApplicationStart(Telemetry(port=None), poll_seconds=0.01)
    deploying, healthy = state("DEPLOYING"), state("RUNNING", "HEALTHY")
    start._states = Serve(None, [], [deploying], [deploying], [healthy])
    variables = start.add("tiny", "org/tiny")
    spans = spans_of(sink, start)
    assert set(spans) == {"serve application", "serve deployment", "ray submit application"}
    deployment = spans["serve deployment"]
    assert variables == {"TRACEPARENT": f"00-{deployment.span.trace_id.hex()}-{deployment.id}-01", JOINED: "1"}
    assert deployment.attributes["phasebus.model"] == "org/tiny"


@pytest.mark.parametrize(
    ("last", "message"), [("DEPLOY_FAILED", "out of GPUs"), (None, "deleted before it was running")]
)
def test_application_that_does_not_run_is_a_failed_trace(sink: OtlpSink, last: str | None, message: str) -> None:
    states = [[state("DEPLOYING")], [] if last is None else [state(last)]]
    start = ApplicationStart(Telemetry(port=None), Serve(*states), poll_seconds=0.01)
    start.add("tiny", "tiny")
    spans = spans_of(sink, start)
    for name in ("serve application", "serve deployment"):
        assert message in spans[name].span.status.message
        assert spans[name].attributes["error.type"] == "ApplicationError"


def test_program_that_ends_before_the_application_runs_exports_what_there_is(sink: OtlpSink) -> None:
    start = ApplicationStart(Telemetry(port=None), Serve([state("DEPLOYING", name="Other:other")]), poll_seconds=0.01)
    start.add("tiny", "tiny")
    start.close()
    spans = spans_of(sink, start)
    assert list(spans) == ["serve application"]


def test_deployment_whose_program_exports_nothing_joins_no_trace(
    sink: OtlpSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT")
    assert join_application("tiny", "tiny", {}) == {}
    assert join_application("tiny", "tiny", {"TRACEPARENT": "x", "OTEL_EXPORTER_OTLP_ENDPOINT": sink.url}) == {}


def test_process_without_ray_is_no_driver_and_imports_no_ray() -> None:
    script = (
        "import sys\n"
        "from phasebus.initializer.integrations.ray_serve.status import applications, is_driver\n"
        "assert not is_driver() and applications() is None\n"
        "sys.exit(sum(name.partition('.')[0] == 'ray' for name in sys.modules))\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0


PARENT = f"00-{'a' * 32}-{'b' * 16}-01"


def test_replica_of_a_deploying_application_belongs_to_its_trace() -> None:
    deploying = state("DEPLOYING")
    origin = replica_origin("r", "app", {"TRACEPARENT": PARENT, JOINED: "1"}, [deploying])
    assert (origin.identity.trace, origin.identity.parent) == ("a" * 32, "b" * 16)
    assert origin.requested_ns == deploying.deployed_ns
    assert origin.linked_to is None


def test_replica_of_a_running_application_has_a_trace_that_links_to_the_first() -> None:
    origin = replica_origin("r", "app", {"TRACEPARENT": PARENT, JOINED: "1"}, [state("RUNNING")])
    assert origin.identity.trace != "a" * 32
    assert origin.identity.parent is None
    assert origin.requested_ns is None
    assert origin.linked_to == PARENT


@pytest.mark.parametrize(
    ("environment", "application", "states"),
    [
        ({}, "app", [state("RUNNING")]),
        ({"TRACEPARENT": PARENT}, "app", [state("RUNNING")]),
        ({"TRACEPARENT": PARENT, JOINED: "1"}, None, [state("RUNNING")]),
        ({"TRACEPARENT": PARENT, JOINED: "1"}, "other", [state("RUNNING")]),
    ],
)
def test_replica_of_an_unknown_application_follows_its_traceparent(
    environment: dict[str, str], application: str | None, states: list[ApplicationState]
) -> None:
    origin = replica_origin("r", application, environment, states)
    assert origin.requested_ns is None
    assert origin.linked_to is None
    assert (origin.identity.trace == "a" * 32) == ("TRACEPARENT" in environment)


def test_replicas_of_an_unobserved_application_derive_the_same_trace() -> None:
    deploying = state("DEPLOYING")
    first, second = (replica_origin(name, "app", {}, [deploying], deployment="tiny") for name in ("r1", "r2"))
    assert (first.identity.trace, first.identity.parent) == (second.identity.trace, second.identity.parent)
    assert first.identity.run != second.identity.run
    assert first.shared == second.shared == SharedTrace("app", deploying.deployed_ns)
    assert first.requested_ns == deploying.deployed_ns
    again = replica_origin("r3", "app", {}, [replace(deploying, deployed_ns=1)], deployment="tiny")
    assert again.identity.trace != first.identity.trace


@pytest.mark.parametrize("later", [state("RUNNING"), state("DEPLOYING")], ids=["autoscaled", "deployed again"])
def test_later_replica_of_an_unobserved_application_links_to_its_trace(
    later: ApplicationState, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = SharedTrace("app", later.deployed_ns)
    monkeypatch.setattr(SharedTrace, "has_ended", lambda _: later.status == "DEPLOYING")
    origin = replica_origin("r", "app", {}, [later], deployment="tiny")
    assert origin.linked_to == f"00-{shared.trace}-{shared.step_of('tiny')}-01"
    assert origin.shared is None
    assert origin.identity.parent is None
    assert origin.identity.trace != shared.trace


def test_unobserved_application_whose_sampler_drops_its_trace_is_dropped_by_all() -> None:
    environment = {"OTEL_TRACES_SAMPLER": "parentbased_always_off"}
    origin = replica_origin("r", "app", environment, [state("DEPLOYING")], deployment="tiny")
    assert origin.identity.parent_sampled is False


def test_one_replica_exports_the_spans_that_those_of_all_belong_to(
    sink: OtlpSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = [True, False]
    ended: list[SharedTrace] = []

    def note_end(shared: SharedTrace) -> None:
        ended.append(shared)

    monkeypatch.setattr(SharedTrace, "claim", lambda _: claims.pop(0))
    monkeypatch.setattr(SharedTrace, "end", note_end)
    deploying = state("DEPLOYING", name="LLMServer:tiny")
    healthy = replace(deploying, status="RUNNING", deployments={"LLMServer:tiny": "HEALTHY"})
    monkeypatch.setattr(ApplicationStart.__init__, "__defaults__", (lambda: [healthy],))
    shared = SharedTrace("app", deploying.deployed_ns)
    for _ in range(2):
        observe_shared(shared, "LLMServer:tiny", "tiny")
    wait_until(lambda: not claims, "both have asked")
    wait_until(lambda: len(sink.spans) >= 2, "the spans have arrived")
    spans = {each.span.name: each for each in exported_spans(export.content for export in sink.exports)}
    assert_is_one_trace(spans.values(), ended_ns=time.time_ns())
    assert {name: each.id for name, each in spans.items()} == {
        "serve application": shared.root,
        "serve deployment": shared.step_of("LLMServer:tiny"),
    }
    assert spans["serve application"].span.trace_id.hex() == shared.trace
    assert spans["serve application"].span.start_time_unix_nano == deploying.deployed_ns
    wait_until(lambda: ended == [shared], "its end is noted")


@pytest.mark.anyio
async def test_replica_has_rays_part_of_its_start_before_its_phases(sink: OtlpSink) -> None:
    second = 10**9
    origin = ReplicaOrigin(
        identity=RunIdentity.fresh("r", {"TRACEPARENT": PARENT}), requested_ns=FIRST_LINE_NS - 5000 * second
    )
    with closing(
        ReplicaStart(
            "r", "tiny", None, (), {"engine_args": {}}, port=None, origin=origin, imported_ns=FIRST_LINE_NS + 1
        )
    ) as replica:
        await replica.wait_for("download")
        replica.finish("download")
        await replica.wait_for(ENGINE_START)
        replica.reports_engine = True
        replica.finish(ENGINE_START, object())
        await replica.wait_for_end()
    wait_until(lambda: "serve replica" in {span.name for span in sink.spans}, "the replica's span has arrived")
    spans = exported_spans(export.content for export in sink.exports)
    assert_is_one_trace(spans, caller="b" * 16)
    by_name = {each.span.name: each for each in spans}
    whole, node = by_name["serve replica"], by_name["node init"]
    assert node.parent == whole.id
    assert "phasebus.configuration" in {each.key for each in whole.span.attributes}
    names = ["ray schedule replica", "ray start worker process", "ray import serve llm", "ray init replica"]
    inside = [by_name[name].span for name in names] + [node.span]
    assert inside[0].start_time_unix_nano == whole.span.start_time_unix_nano
    for before, after in pairwise(inside):
        assert 0 <= after.start_time_unix_nano - before.end_time_unix_nano < second


@pytest.mark.anyio
async def test_replica_that_starts_later_links_to_the_start_of_its_application(sink: OtlpSink) -> None:
    origin = ReplicaOrigin(identity=RunIdentity.fresh("r", {}), linked_to=PARENT)
    with closing(ReplicaStart("r", "tiny", None, (), {}, port=None, origin=origin)) as replica:
        await replica.wait_for("download")
        replica.fail(ValueError("no"))
        with pytest.raises(ValueError, match="no"):
            await replica.wait_for_end()
    wait_until(lambda: "serve replica" in {span.name for span in sink.spans}, "the replica's span has arrived")
    spans = exported_spans(export.content for export in sink.exports)
    assert_is_one_trace(spans)
    (whole,) = (each.span for each in spans if each.span.name == "serve replica")
    assert [(link.trace_id.hex(), link.span_id.hex()) for link in whole.links] == [("a" * 32, "b" * 16)]
    assert whole.status.message == "no"
