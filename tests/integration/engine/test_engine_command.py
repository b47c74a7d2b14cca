"""`phasebus run` around a plain `vllm serve`: the same trace, metrics and probes, and nothing of it changed."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from phasebus.initializer.engines.vllm.inside.forkserver.safety import threads_of
from phasebus.telemetry import EngineSpan
from phasebus.telemetry.analysis import unnamed_share
from phasebus.telemetry.journal import Run
from tests.support.command import Command
from tests.support.exposition import samples, total
from tests.support.otlp import OtlpBackend
from tests.support.programs import free_port
from tests.support.traces import UNNAMED, ExportedSpan, process_times
from tests.support.waiting import wait_until

UNNAMED_OF_PROCESS = 0.1
"""The largest share of its life in a start in which a process has no step."""

WAITING_OF_WORKERS = 0.8
"""The largest share of a worker's life in a start without a step: it waits for the core and the other worker, 40 % of 2 s
on a busy machine."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """A `vllm serve` under `phasebus run`, from all sides."""

    model: str
    while_importing: str
    serving: str
    iterations: list[EngineSpan]
    answered: int
    code: int
    stdout: str
    stderr: str
    left_behind: list[str]
    parents: dict[str, str]
    threads_of_server: int
    run: Run
    spans: list[EngineSpan]
    exported: list[ExportedSpan]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_model: str, backend: OtlpBackend) -> Iterator[Served]:
    folder, port = tmp_path_factory.mktemp("run"), free_port()
    model = folder / "model"
    command = Command(
        *("run", "-v", "--port=0", "--download", tiny_model, "--destination", str(model), "--"),
        *(str(Path(sys.prefix) / "bin" / "vllm"), "serve", str(model), f"--port={port}"),
        *("--host=127.0.0.1", "--max-model-len=256", "--enforce-eager", "--dtype=bfloat16"),
        "--tensor-parallel-size=2",
        state=folder,
        environment={
            "OTEL_EXPORTER_OTLP_ENDPOINT": backend.http,
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # by default each worker wants cores of its own
            "HF_HUB_OFFLINE": "1",
            "PHASEBUS_ITERATION_SAMPLING": "5",
            "PATH": os.pathsep.join([str(Path(sys.prefix) / "bin"), os.environ["PATH"]]),
        },
    )
    try:
        command.wait_for("engine_step", "start_process")
        importing = command.get("/metrics", Accept="text/plain").text
        wait_until(lambda: ready(command), "the server is ready", seconds=400)
        answered = httpx.post(
            f"http://127.0.0.1:{port}/v1/completions",
            json={"model": str(model), "prompt": "A start-up is", "max_tokens": 20},
            timeout=60,
        ).status_code
        wait_until(lambda: "iteration_requests_count" in command.get("/metrics").text, "the iterations are reported")
        serving = command.get("/metrics", Accept="text/plain").text
        processes = command.processes()
        forked = {name: each for name, each in processes.items() if name.startswith("VLLM::")}
        parents = {name: psutil.Process(each.ppid()).cmdline()[0] for name, each in forked.items()}
        threads = threads_of(processes["phasebus fork server"].pid)
        command.send(signal.SIGTERM)
        code = command.wait()
        run = command.journal()
        yield Served(
            model=str(model),
            while_importing=importing,
            serving=serving,
            iterations=backend.spans_called("engine iteration"),
            answered=answered,
            code=code,
            stdout=command.stdout,
            stderr=command.stderr,
            parents=parents,
            threads_of_server=len(threads),
            left_behind=command.left_behind(),
            run=run,
            spans=backend.spans_of(run),
            exported=backend.exported(run.trace),
        )
    finally:
        command.close()
        shutil.rmtree(model, ignore_errors=True)


def ready(command: Command) -> bool:
    command.look()
    assert not command.ended, command.stderr
    return command.get("/readyz").status_code == 200


def test_every_rank_has_every_one_of_its_steps_once(served: Served) -> None:
    steps = [step for step in served.run.steps if step.kind == "engine_step"]
    assert len({step.id for step in steps}) == len(steps)
    by_process: dict[str, list[str]] = {}
    for step in steps:
        if step.name not in ("collect_garbage", "import_modules"):  # vLLM does these several times
            by_process.setdefault(step.attributes["process"], []).append(step.name)
    assert set(by_process) == {"front_end", "EngineCore", "Worker_TP0", "Worker_TP1"}
    for names in by_process.values():
        assert [name for name in set(names) if names.count(name) > 1] == []
    assert sorted(by_process["Worker_TP0"]) == sorted(by_process["Worker_TP1"])
    assert {"start_process", "init_worker", "load_weights", "warm_up"} <= set(by_process["Worker_TP1"])
    assert {step.attributes.get("tp_rank") for step in steps if step.name == "load_weights"} == {0, 1}


def test_span_ids_of_two_ranks_never_collide(served: Served) -> None:
    assert len({span.span for span in served.spans}) == len(served.spans)


def test_it_is_ready_when_the_server_answers_and_ends_as_the_server_does(served: Served) -> None:
    assert served.answered == 200
    assert served.code == 0
    assert served.left_behind == []


def test_healthy_start_is_never_reported_as_stuck(served: Served) -> None:
    assert served.run.stuck == ()


def test_engine_core_and_workers_are_forks_of_a_server_with_one_thread(served: Served) -> None:
    assert set(served.parents) == {"VLLM::EngineCore", "VLLM::Worker_TP0", "VLLM::Worker_TP1"}
    assert set(served.parents.values()) == {"phasebus fork server"}
    assert served.threads_of_server == 1
    assert "is spawned" not in served.stderr


def test_metrics_show_a_process_that_is_still_importing(served: Served) -> None:
    assert 'phasebus_engine_step_in_progress{step="start_process"} 1.0' in served.while_importing


def test_nearly_all_of_the_engines_start_lies_under_a_named_step(served: Served) -> None:
    (engine,) = (step for step in served.run.steps if step.kind == "engine")
    covered, reached, names = 0, engine.start_ns, set()
    for step in served.run.steps:  # in the order they began
        if step.kind == "engine_step" and step.name != "other" and step.end_ns is not None:
            covered += max(0, step.end_ns - max(step.start_ns, reached))
            reached = max(reached, step.end_ns)
            names.add(step.name)
    assert "init_api_server" in names  # after which it listens, and all that is left is for the last notices to arrive
    assert covered / (reached - engine.start_ns) >= 0.95
    assert unnamed_share(served.run) <= UNNAMED


def test_the_model_is_fetched_while_the_command_imports(served: Served) -> None:
    steps = {(step.kind, step.name): step for step in served.run.steps}
    download = steps["phase", "download"]
    imports = steps["engine_step", "start_process"]
    assert download.outcome == "finished"
    assert imports.end_ns is not None
    assert download.start_ns < imports.end_ns
    assert ("engine_step", "wait_for_model") in steps


def test_the_weights_step_has_the_number_of_bytes(served: Served) -> None:
    weights = [step for step in served.run.steps if step.name == "load_weights"]
    assert len(weights) == 2
    assert sum(step.attributes["bytes"] for step in weights) > 1_000_000


def test_the_engine_reports_the_name_that_its_model_is_served_under(served: Served) -> None:
    (configured,) = (step for step in served.run.steps if step.name == "configure_engine")
    assert configured.attributes["model"] == served.model


def test_the_trace_is_one_tree_with_a_span_for_every_step(served: Served) -> None:
    ids = {span.span for span in served.spans}
    assert [span.name for span in served.spans if span.parent is None] == ["node init"]
    assert [span.name for span in served.spans if span.parent is not None and span.parent not in ids] == []
    assert {step.id for step in served.run.steps} <= ids


def test_the_exclusive_times_of_the_engines_steps_add_up_to_its_start(served: Served) -> None:
    whole = total(served.serving, "phasebus_engine_init_duration_seconds_sum")
    assert total(served.serving, "phasebus_engine_step_self_seconds_total") == pytest.approx(whole, rel=0.01)
    assert total(served.serving, "phasebus_engine_step_duration_seconds_sum") > 1.5 * whole  # steps nest
    (unattributed,) = (
        each.value
        for each in samples(served.serving, "phasebus_engine_step_self_seconds_total")
        if each.labels["step"] == "unattributed"
    )
    assert unattributed < 0.1 * whole


def test_the_exclusive_times_of_each_process_add_up_to_its_life_in_the_start(served: Served) -> None:
    times = process_times(served.exported)
    assert len(times) == 5  # phasebus, the front end, the engine core, two workers
    for process, each in times.items():
        assert sum(each.exclusive_seconds.values()) == pytest.approx(each.life_seconds), process
        assert each.unattributed_share <= (WAITING_OF_WORKERS if "Worker" in process else UNNAMED_OF_PROCESS), process


def test_scrape_of_a_node_with_two_workers_is_at_most_25_kilobytes(served: Served, tiny_model: str) -> None:
    scrape = served.serving
    for folder in (served.model, tiny_model, tiny_model.removeprefix("file://")):  # as long as the runner's folders
        scrape = scrape.replace(folder, "models/tiny-llama")
    assert len(scrape) <= 25_000, len(scrape)


def test_the_age_of_the_start_is_exported_while_it_runs_and_its_duration_afterwards(served: Served) -> None:
    assert total(served.while_importing, "phasebus_node_startup_age_seconds") > 0
    assert total(served.while_importing, "phasebus_node_startup_seconds") == 0
    assert total(served.serving, "phasebus_node_startup_age_seconds") == 0
    assert total(served.serving, "phasebus_node_startup_seconds") == pytest.approx(
        total(served.serving, "phasebus_node_startup_duration_seconds_sum")
    )


def test_the_series_of_a_start_exist_at_0_before_it_ends(served: Served) -> None:
    for name in ("startup_duration_seconds_count", "startups_total"):
        assert {each.value for each in samples(served.while_importing, f"phasebus_node_{name}")} == {0.0}
    name = "phasebus_engine_step_self_seconds_total"
    early = {each.labels["step"]: each.value for each in samples(served.while_importing, name)}
    assert set(early.values()) == {0.0}
    assert {each.labels["step"] for each in samples(served.serving, name)} <= set(early)


def test_iterations_are_counted_and_what_vllm_says_itself_is_left_to_it(served: Served) -> None:
    assert 'phasebus_engine_iteration_duration_seconds_count{engine="0"}' in served.serving
    assert "phasebus_engine_tokens_total" not in served.serving


def test_one_iteration_in_so_many_has_a_span_outside_the_trace_of_the_start_up(served: Served) -> None:
    assert served.iterations
    assert {span.trace for span in served.iterations} & {served.run.trace} == set()
    assert served.iterations[0].attributes["phasebus.requests"] == 1


def test_every_step_ended(served: Served) -> None:
    assert {step.outcome for step in served.run.steps} == {"finished"}
