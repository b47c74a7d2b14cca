"""`phasebus up` on two real raylets, one of them with a real vLLM: the command, the hub, the trace."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from phasebus.initializer.cli.demo_model import tiny_model_path, write_tiny_model
from phasebus.telemetry import EngineSpan
from phasebus.telemetry.analysis import unnamed_share
from phasebus.telemetry.journal import Run
from tests.support.command import Command
from tests.support.otlp import OtlpBackend
from tests.support.traces import UNNAMED
from tests.support.two_nodes import TwoNodes
from tests.support.waiting import wait_until

pytest.importorskip("vllm")


@dataclass(frozen=True, kw_only=True)
class Started:
    """What was observed of a start."""

    state: dict[str, Any]
    metrics: str
    targets: list[dict[str, Any]]
    completion: httpx.Response
    stdout: str
    stderr: str
    code: int
    left_behind: list[str]
    run: Run
    spans: list[EngineSpan]


@pytest.fixture(scope="module")
def started(nodes: TwoNodes, backend: OtlpBackend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    folder = tmp_path_factory.mktemp("up")
    config = folder / "cluster.yaml"
    model = write_tiny_model(tiny_model_path())
    config.write_text(
        "models:\n"
        f"  - {{name: chat, model: {model}, engine_env: {{VLLM_CPU_KVCACHE_SPACE: '1'}},"
        "     engine_args: {max_model_len: 256, enforce_eager: true, dtype: bfloat16}}\n"
        f"  - {{name: store, model: {model}, engine: none}}\n"
        "strategy: STRICT_SPREAD\n"
        "silence_seconds: 60\n"
        f"ray: {{address: '{nodes.address}'}}\n"
        "service: {port: 0}\n"
    )
    command = Command(
        "up",
        str(config),
        "--prompt=A start-up is",
        state=folder,
        environment={"OTEL_EXPORTER_OTLP_ENDPOINT": backend.http},
    )
    try:
        wait_until(lambda: command.ended or "ready in" in command.stdout, "it is ready", seconds=400)
        assert not command.ended, command.stderr
        wait_until(lambda: command.get("/readyz").status_code == 200, "the hub has received it")
        state, metrics = command.get("/state").json(), command.get("/metrics").text
        targets = command.get("/sd").json()
        url = next(node["url"] for node in state["nodes"] if node["url"])
        request = {"model": str(model), "prompt": "A start-up is", "max_tokens": 2}
        completion = httpx.post(f"{url}/v1/completions", json=request, timeout=60)
        command.send(signal.SIGINT)
        code = command.wait()
        run = command.journal()
        yield Started(
            state=state,
            metrics=metrics,
            targets=targets,
            completion=completion,
            stdout=command.stdout,
            stderr=command.stderr,
            code=code,
            left_behind=command.left_behind(),
            run=run,
            spans=backend.spans_of(run),
        )
    finally:
        command.close()
    nodes.wait_until_free()


def test_the_command_prints_a_text_and_the_time_of_each_step(started: Started) -> None:
    assert started.code == 0, started.stderr
    assert "prompt   'A start-up is'" in started.stdout
    for step in ("cluster", "engine init on ", "load model"):
        assert step in started.stdout
    assert "Traceback" not in started.stderr
    assert started.left_behind == []


def test_healthy_start_is_never_reported_as_stuck(started: Started) -> None:
    assert started.run.stuck == ()


def test_nearly_all_of_the_start_lies_under_a_named_step(started: Started) -> None:
    assert unnamed_share(started.run) <= UNNAMED


def test_the_hub_has_both_nodes_and_the_engines_steps(started: Started) -> None:
    assert {(node["name"], node["status"]) for node in started.state["nodes"]} == {
        ("chat-0", "ready"),
        ("store-1", "ready"),
    }
    assert 'phasebus_cluster_engine_step_duration_seconds_count{step="load_weights"} 1.0' in started.metrics
    assert 'phasebus_cluster_phase_duration_seconds_count{phase="download"} 2.0' in started.metrics


def test_node_with_an_engine_serves_and_the_hub_lists_its_server(started: Started) -> None:
    assert started.completion.status_code == 200, started.completion.text
    urls = {node["name"]: node["url"] for node in started.state["nodes"]}
    assert urls["store-1"] is None
    assert f"serving  {urls['chat-0']}" in started.stdout
    (target,) = (each for each in started.targets if each["labels"].get("job") == "vllm")
    assert target["labels"] == {"job": "vllm", "node": "chat-0", "__scheme__": "http"}
    assert [f"http://{address}" for address in target["targets"]] == [urls["chat-0"]]


def test_the_whole_start_is_one_trace_from_the_driver_to_vllms_processes(started: Started) -> None:
    spans = {span.span: span for span in started.spans}
    assert [span.name for span in spans.values() if span.parent is None] == ["cluster startup"]
    assert [span.name for span in spans.values() if span.parent and span.parent not in spans] == []
    assert {step.outcome for step in started.run.steps} == {"finished"}
    engines = [span for span in spans.values() if "vllm.span" in span.attributes]
    assert engines
    for span in engines:
        ancestors = [span]
        while ancestors[-1].parent is not None:
            ancestors.append(spans[ancestors[-1].parent])
        names = [each.name for each in ancestors]
        assert names[-4:] == ["engine init", "phase engine_init", "node init", "cluster startup"]
        assert ancestors[-2].resource["phasebus.node"] == "chat-0"
