from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from phasebus.telemetry import EngineSpan
from phasebus.telemetry.journal import Run
from tests.support.command import Command
from tests.support.otlp import OtlpBackend
from tests.support.programs import program
from tests.support.waiting import wait_until


@dataclass(frozen=True, kw_only=True)
class Demo:
    """A real start-up: what its service answered while it ran, and its outputs.

    Attributes:
        phases: The status codes and phases that /readyz answered, in order, without repetitions.
        livez: The status codes that /livez answered.
        metrics: The response of /metrics while the engine was starting.
        check: The result of `promtool check metrics` for it.
        ready_metrics: The response of /metrics when the start-up was ready.
        models: The response of the engine's server to GET /v1/models.
        completion: Its response to POST /v1/completions.
        engine_metrics: Its response to GET /metrics.
    """

    phases: list[tuple[int, str | None]]
    livez: set[int]
    metrics: str
    check: subprocess.CompletedProcess[str] | None
    ready_metrics: str
    models: httpx.Response
    completion: httpx.Response
    engine_metrics: str
    stdout: str
    stderr: str
    code: int
    left_behind: list[str]
    run: Run
    spans: list[EngineSpan]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, backend: OtlpBackend) -> Iterator[Demo]:
    """One `phasebus demo`, observed until it is ready and then ended by Ctrl-C: the only vLLM start of these tests."""
    promtool = program("promtool", "prometheus")
    command = Command(
        "demo",
        "--port=0",
        state=tmp_path_factory.mktemp("demo"),
        environment={"OTEL_EXPORTER_OTLP_ENDPOINT": backend.http},
    )
    phases: list[tuple[int, str | None]] = []
    livez: set[int] = set()
    metrics, ready_metrics, check = "", "", None

    def look() -> bool:
        nonlocal metrics, check
        assert not command.ended, command.stderr
        command.look()
        livez.add(command.get("/livez").status_code)
        answer = command.get("/readyz")
        moment = (answer.status_code, answer.json()["phase"])
        if moment not in phases:
            phases.append(moment)
        if check is None and moment == (503, "engine_init"):
            metrics = command.get("/metrics", Accept="text/plain").text
            if 'phase_in_progress{phase="engine_init"} 1.0' in metrics:  # an observer sets it, in a thread of its own
                check = subprocess.run(
                    [promtool, "check", "metrics"], input=metrics, capture_output=True, text=True, check=False
                )
        return answer.status_code == 200

    def has_all_metrics() -> bool:
        nonlocal ready_metrics
        ready_metrics = command.get("/metrics", Accept="application/openmetrics-text").text
        return "phasebus_node_startup_seconds{" in ready_metrics and "engine_tokens_total" in ready_metrics

    try:
        wait_until(look, "the demo is ready", seconds=400)
        wait_until(lambda: "serving  http" in command.stdout, "the lines of a ready node")
        wait_until(has_all_metrics, "the metrics of all steps")
        url = command.stdout.partition("serving  ")[2].split()[0]
        models = httpx.get(f"{url}/v1/models", timeout=30)
        request = {"model": models.json()["data"][0]["id"], "prompt": "A start-up is", "max_tokens": 4}
        completion = httpx.post(f"{url}/v1/completions", json=request, timeout=60)
        engine_metrics = httpx.get(f"{url}/metrics", timeout=30).text
        command.send(signal.SIGINT)
        code = command.wait()
        run = command.journal()
        yield Demo(
            phases=phases,
            livez=livez,
            metrics=metrics,
            check=check,
            ready_metrics=ready_metrics,
            models=models,
            completion=completion,
            engine_metrics=engine_metrics,
            stdout=command.stdout,
            stderr=command.stderr,
            code=code,
            left_behind=command.left_behind(),
            run=run,
            spans=backend.spans_of(run),
        )
    finally:
        command.close()
