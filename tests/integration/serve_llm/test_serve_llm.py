"""Real Ray Serve LLM applications with real vLLM, unforked, with phasebus on them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from phasebus.initializer.tiny_model import tiny_model_path, write_tiny_model
from phasebus.telemetry import EngineSpan
from phasebus.telemetry.journal import Run, read_journal
from tests.support.otlp import OtlpBackend
from tests.support.programs import ROOT, free_port
from tests.support.serve_callbacks import SHORTER
from tests.support.waiting import wait_until

pytest.importorskip("vllm")

pytestmark = [
    pytest.mark.timeout(450),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Ray, of pydantic, while it is imported
]

_CALLBACK = "phasebus.initializer.ray_serve.BusCallback"
_SERVER = "phasebus.initializer.ray_serve.BusServer"
_CALLBACKS = [f"tests.support.serve_callbacks:{name}" for name in ("note_phase", "shorten", "fetch_nothing")]


@dataclass(frozen=True, kw_only=True)
class Application:
    """A running application, and what its one replica's start has left."""

    url: str
    run: Run
    spans: list[EngineSpan]

    def complete(self, prompt: str) -> httpx.Response:
        body = {"model": "tiny", "prompt": prompt, "max_tokens": 4}
        return httpx.post(f"{self.url}/v1/completions", json=body, timeout=120)


@pytest.fixture(scope="module")
def serve() -> Iterator[int]:
    """A local Ray with Serve; its HTTP port."""
    import ray
    from ray import serve

    ray.init(num_cpus=16, include_dashboard=False, log_to_driver=False, object_store_memory=128 * 2**20)
    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    yield port
    serve.shutdown()
    ray.shutdown()


def run_application(name: str, port: int, folder: Path, backend: OtlpBackend, **fields: Any) -> Application:
    from ray import serve
    from ray.serve.llm import LLMConfig, build_openai_app

    env_vars = {
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
        "PHASEBUS_STATE_DIR": str(folder),
        "OTEL_EXPORTER_OTLP_ENDPOINT": backend.http,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "HF_HUB_OFFLINE": "1",
    }
    config = LLMConfig(
        model_loading_config={"model_id": "tiny", "model_source": str(write_tiny_model(tiny_model_path()))},
        accelerator_type=None,
        placement_group_config={"bundles": [{"CPU": 1}], "strategy": "PACK"},
        deployment_config={
            "autoscaling_config": {"min_replicas": 1, "max_replicas": 2},
            "ray_actor_options": {"num_cpus": 1},
        },
        engine_kwargs={
            "max_model_len": 256,
            "enforce_eager": True,
            "dtype": "bfloat16",
            "distributed_executor_backend": "mp",
        },
        callback_config={"callback_class": _CALLBACK, "callback_kwargs": {"callbacks": _CALLBACKS}},
        runtime_env={"env_vars": env_vars},
        **fields,
    )
    serve.run(build_openai_app({"llm_configs": [config]}), name=name, route_prefix=f"/{name}")
    (journal,) = folder.glob("runs/*.jsonl")
    wait_until(lambda: read_journal(journal).state == "closed", "the start has been told to its end")
    run = read_journal(journal)
    wait_until(
        lambda: {step.id for step in run.steps} <= {span.span for span in backend.spans(run.trace)}, "the spans arrived"
    )
    spans = backend.spans(run.trace)
    return Application(url=f"http://127.0.0.1:{port}/{name}", run=run, spans=spans)


@pytest.fixture(scope="module")
def by_server(serve: int, tmp_path_factory: pytest.TempPathFactory, backend: OtlpBackend) -> Application:
    return run_application("server", serve, tmp_path_factory.mktemp("server"), backend, server_cls=_SERVER)


@pytest.fixture(scope="module")
def by_callback(serve: int, tmp_path_factory: pytest.TempPathFactory, backend: OtlpBackend) -> Application:
    return run_application("callback", serve, tmp_path_factory.mktemp("callback"), backend)


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
    assert [span.name for span in spans.values() if span.parent is None] == ["node init"]
    assert [span.name for span in spans.values() if span.parent and span.parent not in spans] == []
    steps = {step.name for step in application.run.steps if step.kind == "engine_step"}
    assert {"load_model", "load_weights", "allocate_kv_cache"} <= steps
