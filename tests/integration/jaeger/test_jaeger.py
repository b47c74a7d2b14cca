"""Start-ups read back from a real Jaeger: the one that JAEGER_QUERY_URL names, which receives OTLP as well.

```console
docker run --rm -p 16686:16686 -p 4318:4318 jaegertracing/jaeger:2.11.0
JAEGER_QUERY_URL=http://localhost:16686 make test ARGS='tests/integration/jaeger'
```
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import pytest

from phasebus.initializer.cli.demo_model import tiny_model_path, write_tiny_model
from phasebus.telemetry.journal import read_journal
from tests.support.command import Command
from tests.support.jaeger import whole_trace
from tests.support.programs import free_port
from tests.support.serve_llm import SERVER, local_serve, replica_journals, run_application
from tests.support.two_nodes import two_nodes
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(900)


class Start(Protocol):
    """Runs `phasebus` with these arguments and variables."""

    def __call__(self, *arguments: str, **environment: str) -> Command: ...


@pytest.fixture
def jaeger() -> str:
    """The URL of Jaeger's query API."""
    url = os.environ.get("JAEGER_QUERY_URL")
    if not url:
        pytest.skip("JAEGER_QUERY_URL names no Jaeger; no registry has one to install")
    return url.rstrip("/")


def otlp_of(jaeger: str) -> str:
    """Return the URL of Jaeger's receiver of OTLP over HTTP."""
    return os.environ.get("JAEGER_OTLP_URL") or f"http://{urlsplit(jaeger).hostname}:4318"


@pytest.fixture
def start(jaeger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.delenv("TRACEPARENT", raising=False)
    with ExitStack() as stack:

        def run(*arguments: str, **environment: str) -> Command:
            variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": otlp_of(jaeger), **environment}
            command = Command(*arguments, state=tmp_path, environment=variables)
            stack.callback(command.close)
            return command

        yield run


@pytest.fixture
def node(tmp_path: Path) -> str:
    """The configuration of a node without an engine."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    config = tmp_path / "node.yaml"
    config.write_text(f"model: {tmp_path / 'model'}\nengine: none\nservice: {{port: null}}\n")
    return str(config)


@pytest.mark.parametrize("pending", ["0", "1"])
def test_node_is_one_whole_trace_in_jaeger(jaeger: str, start: Start, node: str, pending: str) -> None:
    command = start("up", node, "--once", PHASEBUS_PENDING_SPANS=pending)
    assert command.wait() == 0, command.stderr
    run = command.journal()
    spans = whole_trace(jaeger, run.trace, {step.id for step in run.steps})
    assert {"node init", "phase download", "phase post_initialization"} <= {each.span.name for each in spans}
    assert ("started node init" in {each.span.name for each in spans}) == (pending == "1")


def test_failed_node_is_one_whole_trace_in_jaeger(jaeger: str, start: Start, node: str, tmp_path: Path) -> None:
    (tmp_path / "model" / "config.json").unlink()
    command = start("up", node, "--once")
    assert command.wait() == 1
    run = command.journal()
    spans = whole_trace(jaeger, run.trace, {step.id for step in run.steps})
    (root,) = (each for each in spans if each.span.name == "node init")
    assert root.span.status.message


@pytest.mark.parametrize("ranks", [1, 2])
def test_vllm_server_is_one_whole_trace_in_jaeger(jaeger: str, start: Start, ranks: int) -> None:
    pytest.importorskip("vllm")
    vllm, port = str(Path(sys.prefix) / "bin" / "vllm"), free_port()
    model = str(write_tiny_model(tiny_model_path()))
    command = start(
        *("run", "--port=0", "--", vllm, "serve", model, f"--port={port}", "--host=127.0.0.1"),
        *("--max-model-len=256", "--enforce-eager", "--dtype=bfloat16", f"--tensor-parallel-size={ranks}"),
        VLLM_CPU_KVCACHE_SPACE="1",
        VLLM_CPU_OMP_THREADS_BIND="nobind",
        HF_HUB_OFFLINE="1",
    )
    wait_until(lambda: command.ended or command.get("/readyz").is_success, "the server is ready", seconds=600)
    assert not command.ended, command.stderr
    run = command.journal()
    command.close()
    ended = {step.id for step in run.steps if step.end_ns is not None}
    spans = whole_trace(jaeger, run.trace, ended)
    assert len([each for each in spans if each.span.name == "load weights"]) == ranks


def test_cluster_is_one_whole_trace_in_jaeger(jaeger: str, start: Start, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    with two_nodes() as nodes:
        config = tmp_path / "cluster.yaml"
        config.write_text(
            f"models:\n  - {{name: store, model: {tmp_path / 'model'}, engine: none, replicas: 2}}\n"
            f"strategy: STRICT_SPREAD\nray: {{address: '{nodes.address}'}}\nservice: {{port: 0}}\n"
        )
        command = start("up", str(config))
        wait_until(lambda: command.ended or "ready in" in command.stdout, "the cluster is ready", seconds=300)
        assert not command.ended, command.stderr
        command.send(signal.SIGINT)
        assert command.wait() == 0, command.stderr
        run = command.journal()
    steps = {step.id for path in tmp_path.glob("runs/*.jsonl") for step in read_journal(path).steps}
    spans = whole_trace(jaeger, run.trace, steps)
    assert {"cluster startup", "ray start node actor"} <= {each.span.name for each in spans}
    assert len([each for each in spans if each.span.name == "node init"]) == 2


@pytest.mark.parametrize("fields", [{}, {"server_cls": SERVER}], ids=["callback", "server"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray, of pydantic, while it is imported
def test_serve_llm_is_one_whole_trace_in_jaeger(
    jaeger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, str]
) -> None:
    pytest.importorskip("vllm")
    monkeypatch.setenv("PHASEBUS_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("TRACEPARENT", raising=False)
    with local_serve():
        run_application("jaeger", tmp_path, otlp_of(jaeger), {"min_replicas": 2}, **fields)
        replicas = replica_journals(tmp_path)
        wait_until(lambda: all(read_journal(path).state == "closed" for path in replicas), "the starts have ended", 240)
    runs = [read_journal(path) for path in replicas]
    (trace,) = {run.trace for run in runs}
    spans = whole_trace(jaeger, trace, {step.id for run in runs for step in run.steps})
    assert len([each for each in spans if each.span.name == "serve replica"]) == 2
    assert len([each for each in spans if each.span.name == "load weights"]) == 2
