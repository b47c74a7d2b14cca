"""The pod of `node/cpu` as it is in the manifest, without a cluster: from its start to the end of its grace period."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from phasebus.initializer.cli.demo_model import tiny_model_path, write_tiny_model
from tests.support.kubernetes import Manifest, node_file, pod_templates
from tests.support.pod_sandbox import PodSandbox, running_container
from tests.support.waiting import wait_until

pytest.importorskip("vllm")
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a container of another user")

FOLDER = "node/cpu"
API = "http://127.0.0.1:8000"
SERVED = "Qwen/Qwen2.5-0.5B-Instruct"
TOKENS = 500


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What was observed of the pod.

    Attributes:
        probes: The statuses of the three probes when the startup probe had succeeded.
        models: The response to GET /v1/models.
        streamed: The status and the events of a streaming POST to /v1/completions that ran when SIGTERM arrived.
        draining: The status and the text of the readiness probe while that request could not end.
        metrics: The response of phasebus to GET /metrics.
        code: The exit code after SIGTERM.
        log: The output.
    """

    probes: dict[str, int]
    models: tuple[int, str]
    streamed: list[str]
    draining: tuple[int, str]
    metrics: str
    code: int
    log: str


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    folder = tmp_path_factory.mktemp("pod")
    models, config = folder / "volume", folder / "config"
    shutil.copytree(write_tiny_model(tiny_model_path()), models / "Qwen2.5-0.5B-Instruct")
    written = models / "Qwen2.5-0.5B-Instruct" / "config.json"
    written.write_text(json.dumps({**json.loads(written.read_text()), "max_position_embeddings": 4096}))
    for path in models.rglob("*"):
        path.chmod(path.stat().st_mode | 0o444)  # some files of the tiny model are for their owner only
    config.mkdir()
    node_file(config, FOLDER)
    (pod,) = pod_templates(FOLDER)
    variables = {"VLLM_CPU_KVCACHE_SPACE": "1", "POD_NAMESPACE": "team"}
    log = folder / "log"
    with running_container(pod, {"models": models, "config": config}, variables, log) as sandbox:
        yield observe(sandbox, pod, log)


def observe(sandbox: PodSandbox, pod: Manifest, log: Path) -> Ended:
    (container,) = pod["spec"]["containers"]

    def succeeds(kind: str) -> bool:
        assert sandbox.process.poll() is None, log.read_text()
        return sandbox.get(url_of(container, kind))[0] == 200

    wait_until(lambda: succeeds("startupProbe"), "the startup probe succeeds", seconds=400)
    probes = {kind: sandbox.get(url_of(container, kind))[0] for kind in ("livenessProbe", "readinessProbe")}
    models = sandbox.get(f"{API}/v1/models")
    metrics = sandbox.get("http://127.0.0.1:9464/metrics")[1]
    prompt = {"model": SERVED, "prompt": "A start-up is", "max_tokens": TOKENS, "ignore_eos": True, "stream": True}
    request = sandbox.request(f"{API}/v1/completions", json.dumps(prompt))
    assert request.stdout is not None
    begun = [request.stdout.readline(), request.stdout.readline()]  # the status, and the first event
    with suspended(sandbox, "EngineCore"):
        sandbox.main.terminate()  # as the kubelet does after preStop
        readiness = url_of(container, "readinessProbe")
        wait_until(lambda: sandbox.get(readiness)[0] != 200, "the readiness probe fails", seconds=30)
        draining = sandbox.get(readiness)
    rest, _ = request.communicate(timeout=60)
    code = sandbox.process.wait(pod["spec"]["terminationGracePeriodSeconds"])
    return Ended(
        probes=probes,
        models=models,
        draining=draining,
        streamed=[line.strip() for line in (*begun, *rest.splitlines()) if line.strip()],
        metrics=metrics,
        code=code,
        log=log.read_text(),
    )


@contextmanager
def suspended(sandbox: PodSandbox, name: str) -> Iterator[None]:
    """Stop the processes of a container with `name` in their command lines during the block, so that no request ends."""
    found = []
    for process in sandbox.main.children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # idle workers of Ray end by themselves
            if name in " ".join(process.cmdline()):
                found.append(process)
    assert found, name
    for process in found:
        process.suspend()
    try:
        yield
    finally:
        for process in found:
            process.resume()


def url_of(container: Manifest, kind: str) -> str:
    request = container[kind]["httpGet"]
    (port,) = (each["containerPort"] for each in container["ports"] if each["name"] == request["port"])
    return f"http://127.0.0.1:{port}{request['path']}"


def test_node_starts_as_a_user_without_an_entry_on_a_read_only_root(ended: Ended) -> None:
    assert ended.probes == {"livenessProbe": 200, "readinessProbe": 200}
    assert "phasebus_ready 1.0" in ended.metrics
    assert "Traceback" not in ended.log
    for sign in ("Read-only file system", "Permission denied", "No space left"):
        assert sign not in ended.log


def test_node_serves_the_model_under_the_name_of_the_manifest(ended: Ended) -> None:
    assert ended.models[0] == 200
    assert [each["id"] for each in json.loads(ended.models[1])["data"]] == [SERVED]


def test_request_that_runs_at_sigterm_is_completed_within_the_grace_period(ended: Ended) -> None:
    status, *events, last = ended.streamed
    assert (status, last) == ("200", "data: [DONE]"), ended.log
    choices = [json.loads(event.removeprefix("data: "))["choices"][0] for event in events]
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["length"]


def test_readiness_probe_fails_while_the_last_requests_run(ended: Ended) -> None:
    assert ended.draining[0] == 503
    assert json.loads(ended.draining[1])["status"] == "stopping"


def test_node_ends_within_the_grace_period_without_an_error(ended: Ended) -> None:
    assert ended.code == 0, ended.log
