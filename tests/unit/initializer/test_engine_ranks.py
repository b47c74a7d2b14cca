"""Names and ids of an engine's processes: no two of them are alike, whatever vLLM seeds and however it starts them."""

from __future__ import annotations

import multiprocessing
import os
import queue
import random
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator

from phasebus.initializer.engines.vllm.inside import hooks, ids, processes, ranks, spans
from phasebus.initializer.engines.vllm.inside.reporter import Reporter
from phasebus.telemetry import StepNotice
from phasebus.telemetry.relay import Relay
from phasebus.telemetry.relay.receiver import Received


def worker_main(**kwargs: Any) -> None: ...


def run_engine_core(**kwargs: Any) -> None: ...


worker_main.__qualname__ = "WorkerProc.worker_main"
run_engine_core.__qualname__ = "EngineCoreProc.run_engine_core"


def worker(rank: int, parent: str = "EngineCore", **sizes: int) -> Any:
    parallel = SimpleNamespace(**{"tensor_parallel_size": 1, "pipeline_parallel_size": 1} | sizes)
    arguments = {"vllm_config": SimpleNamespace(parallel_config=parallel), "rank": rank}
    process = multiprocessing.Process(target=worker_main, kwargs=arguments, name=f"VllmWorker-{rank}")
    process._parent_name = parent  # type: ignore[attr-defined]
    return process


@pytest.mark.parametrize(
    ("process", "name", "rank"),
    [
        (worker(0), "Worker", {}),
        (worker(1, tensor_parallel_size=2), "Worker_TP1", {"tp_rank": 1}),
        (worker(1, pipeline_parallel_size=2), "Worker_PP1", {"pp_rank": 1}),
        (worker(0, "EngineCore_DP1"), "Worker_DP1", {"dp_rank": 1}),
        (worker(0, data_parallel_index=3), "Worker_DP3", {"dp_rank": 3}),
        (
            worker(5, "EngineCore_DP1", tensor_parallel_size=2, pipeline_parallel_size=3),
            "Worker_DP1_PP2_TP1",
            {"dp_rank": 1, "pp_rank": 2, "tp_rank": 1},
        ),
        (multiprocessing.Process(target=run_engine_core, name="EngineCore"), "EngineCore", {}),
        (multiprocessing.Process(target=run_engine_core, name="EngineCore_DP1"), "EngineCore_DP1", {"dp_rank": 1}),
        (multiprocessing.Process(target=worker_main, name="VllmWorker-0"), "VllmWorker-0", {}),
    ],
)
def test_process_is_named_by_its_ranks(process: Any, name: str, rank: dict[str, int]) -> None:
    identity = ranks.identity_of(process)
    assert identity is not None
    assert (identity.name, identity.ranks) == (name, rank)


def test_process_that_is_none_of_the_engine_has_no_identity_and_is_not_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", multiprocessing.process.BaseProcess.start)
    sent: list[Any] = []
    processes.report_child_processes(SimpleNamespace(send=sent.append))  # type: ignore[arg-type]
    child = multiprocessing.get_context("fork").Process(target=os.getpid)
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert sent == []
    assert ranks.identity_of(child) is None


def test_core_in_a_ray_actor_has_the_name_in_its_tracer_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = TracerProvider(resource=Resource({"vllm.process_name": "DPEngineCoreActor_DP1"}))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    assert ranks.this_process() == ranks.ProcessIdentity("DPEngineCoreActor_DP1", {"dp_rank": 1})


def test_tracer_provider_that_a_variable_names_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setenv("OTEL_PYTHON_TRACER_PROVIDER", "nope")
    assert isinstance(ranks.current_tracer_provider(), trace.ProxyTracerProvider)
    assert os.environ["OTEL_PYTHON_TRACER_PROVIDER"] == "nope"


def test_process_without_ranks_is_the_front_end() -> None:
    assert ranks.this_process() == ranks.ProcessIdentity(ranks.FRONT_END)


@pytest.mark.parametrize(
    ("actor", "name"),
    [
        ("vllm_Worker_1789_TP0_PP1", "Worker_PP1_TP0"),
        ("vllm_Worker_1789", "Worker"),
        ("mine", ranks.FRONT_END),
        (None, ranks.FRONT_END),
    ],
)
def test_worker_on_ray_is_named_by_the_ranks_in_its_actor_name(
    actor: str | None, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = SimpleNamespace(get_actor_name=lambda: actor)
    ray = SimpleNamespace(is_initialized=lambda: True, get_runtime_context=lambda: context)
    monkeypatch.setitem(sys.modules, "ray", ray)
    assert ranks.this_process().name == name


def test_process_without_a_connection_to_ray_is_no_worker_on_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False))
    assert ranks.ray_worker() is None


def test_ids_differ_under_the_same_seed() -> None:
    provider = TracerProvider()
    ids.use_system_ids(provider)
    generator: IdGenerator = provider.id_generator
    drawn = set()
    for _ in range(2):
        random.seed(0)
        drawn |= {generator.generate_span_id(), generator.generate_trace_id()}
    assert len(drawn) == 4
    assert 0 not in drawn


def test_id_generator_that_the_user_chose_is_kept() -> None:
    class Chosen(RandomIdGenerator):
        pass

    provider = TracerProvider(id_generator=Chosen())
    ids.use_system_ids(provider)
    assert type(provider.id_generator) is Chosen


def test_provider_that_vllm_makes_later_draws_ids_from_the_system() -> None:
    module = ModuleType(ids.VLLM_TRACING)
    module.TracerProvider = TracerProvider  # type: ignore[attr-defined]
    ids._replace_provider(module)
    provider = module.TracerProvider(resource=TracerProvider().resource)
    assert isinstance(provider.id_generator, ids.SystemIdGenerator)


@pytest.fixture
def notices() -> Iterator[tuple[Relay, queue.SimpleQueue[Received]]]:
    """A relay, and the notices that arrive there."""
    relay, arrived = Relay(), queue.SimpleQueue[Received]()
    relay.start()
    relay.listen(arrived.put)
    yield relay, arrived
    relay.close()


def test_forked_worker_reports_its_start_and_steps_as_itself(
    notices: tuple[Relay, queue.SimpleQueue[Received]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM loads plugins once: the process that is forked from an engine core has that one's plugin and provider."""
    relay, arrived = notices
    provider = TracerProvider()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    reporter = Reporter(relay.notices_url, relay.token)
    spans.report_spans(reporter)
    tracer = provider.get_tracer("test")
    tracer.start_span("EngineCoreProc init").end()

    def load_weights(**_: Any) -> None:
        random.seed(0)
        tracer.start_span("Load weights").end()

    load_weights.__qualname__ = "WorkerProc.worker_main"
    children = []
    for rank in range(2):
        arguments = worker(rank, tensor_parallel_size=2)._kwargs
        child = multiprocessing.get_context("fork").Process(target=load_weights, kwargs=arguments)
        child.start()
        children.append(child)
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    reporter.close()
    seen: list[StepNotice] = []
    for _ in range(10):
        notice = arrived.get(timeout=60)
        assert isinstance(notice, StepNotice)
        seen.append(notice)
    assert {(notice.process, notice.name, notice.event) for notice in seen} == {
        *((ranks.FRONT_END, "EngineCoreProc init", event) for event in ("started", "ended")),
        *(
            (f"Worker_TP{rank}", name, event)
            for rank in range(2)
            for name in (processes.START_PROCESS, "Load weights")
            for event in ("started", "ended")
        ),
    }
    assert {notice.pid for notice in seen if notice.name == "Load weights"} == {child.pid for child in children}
    assert len({notice.step for notice in seen}) == 5


@pytest.mark.parametrize("serves", [False, True])
def test_iterations_are_counted_unless_there_are_several_api_servers(
    serves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced: list[str] = []
    monkeypatch.setitem(sys.modules, "vllm.tracing", SimpleNamespace(instrument=None))  # importing vLLM takes seconds
    monkeypatch.setattr(hooks, "this_process", lambda: ranks.ProcessIdentity("ApiServer_0", serves=serves))
    monkeypatch.setattr(hooks, "_replace_when_imported", lambda module, path, wrap: replaced.append(path))
    hooks.install_iteration_counter(SimpleNamespace())  # type: ignore[arg-type]
    assert replaced == ([] if serves else [hooks.STAT_LOGGERS[1]])
