"""One real start-up of Ray and vLLM, looked at from all sides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phasebus.initializer import NODE_PHASES
from phasebus.telemetry.analysis import unnamed_share
from tests.support.traces import UNNAMED

if TYPE_CHECKING:
    from tests.integration.startup.conftest import Demo


def test_it_ends_well_with_a_text_and_a_blame_table(demo: Demo) -> None:
    assert demo.code == 0, demo.stderr
    assert "prompt   'A start-up is'" in demo.stdout
    assert "where the time went" in demo.stdout
    for step in ("node ", "engine init", "load model", "ready in"):
        assert step in demo.stdout
    assert "Traceback" not in demo.stderr


def test_healthy_start_of_the_demo_is_never_reported_as_stuck(demo: Demo) -> None:
    assert demo.run.stuck == ()


def test_the_probes_answer_from_the_first_moment_and_follow_the_phases(demo: Demo) -> None:
    assert demo.livez == {200}
    waiting = [phase for code, phase in demo.phases if code == 503 and phase is not None]
    assert {"placement_group", "engine_init"} <= set(waiting)
    assert demo.phases[-1] == (200, None)


def test_metrics_are_served_and_clean_while_the_engine_is_loading(demo: Demo) -> None:
    assert demo.check is not None
    assert demo.check.returncode == 0, demo.check.stdout + demo.check.stderr
    assert 'phasebus_phase_in_progress{phase="engine_init"} 1.0' in demo.metrics
    assert "phasebus_ready 0.0" in demo.metrics


def test_when_it_is_ready_the_metrics_say_how_long_each_phase_and_step_took(demo: Demo) -> None:
    assert "phasebus_ready 1.0" in demo.ready_metrics
    for phase in ("download", "placement_group", "engine_init"):
        assert f'phasebus_phase_duration_seconds_count{{phase="{phase}"}} 1.0' in demo.ready_metrics
    assert 'phasebus_engine_step_duration_seconds_count{step="load_weights"}' in demo.ready_metrics
    assert f'trace_id="{demo.run.trace}"' in demo.ready_metrics


def test_ready_node_serves_the_openai_api_with_vllms_own_metrics(demo: Demo) -> None:
    assert demo.models.status_code == 200
    assert demo.completion.status_code == 200, demo.completion.text
    assert demo.completion.json()["usage"]["completion_tokens"] == 4
    assert "vllm:generation_tokens_total{" in demo.engine_metrics


def test_server_is_a_part_of_the_engines_start(demo: Demo) -> None:
    steps = {step.name: step for step in demo.run.steps}
    assert {"import_server", "build_api_server", "init_api_server", "start_http_server"} <= set(steps)
    engine = steps["vllm"]
    assert engine.attributes["url"] in demo.stdout
    assert steps["start_http_server"].end_ns is not None
    assert engine.end_ns is not None
    assert steps["start_http_server"].end_ns <= engine.end_ns


def test_all_but_a_small_share_of_the_start_has_a_name(demo: Demo) -> None:
    assert unnamed_share(demo.run) <= UNNAMED


def test_the_iterations_of_the_serving_engine_are_counted(demo: Demo) -> None:
    for name in ("duration_seconds_count", "requests_count"):
        assert f'phasebus_engine_iteration_{name}{{engine="0"}}' in demo.ready_metrics
    assert 'phasebus_engine_tokens_total{engine="0",type="generation"} 24.0' in demo.ready_metrics


def test_every_pre_has_its_post_in_the_order_of_the_table(demo: Demo) -> None:
    table = [event.phase for event in NODE_PHASES if event.phase != "custom_initialization"]
    phases = [moment.phase for moment in demo.run.moments]
    assert sorted(phases) == sorted(table)
    assert [phase for phase in phases if phase.startswith("pre_")] == [p for p in table if p.startswith("pre_")]
    for phase in phases:
        if phase.startswith("post_") and phase != "post_initialization":
            assert phases.index(phase.replace("post_", "pre_")) < phases.index(phase)


def test_every_step_in_the_journal_ended_well_and_hangs_in_one_tree(demo: Demo) -> None:
    ids = {step.id for step in demo.run.steps}
    assert {step.outcome for step in demo.run.steps} == {"finished"}
    assert [step.kind for step in demo.run.steps if step.parent not in ids] == ["node"]


def test_the_engines_steps_lie_within_its_start_and_come_from_its_processes(demo: Demo) -> None:
    (engine,) = (step for step in demo.run.steps if step.kind == "engine")
    assert engine.end_ns is not None
    steps = [step for step in demo.run.steps if step.kind == "engine_step" and step.start_ns >= engine.start_ns]
    names = {"start_process", "load_tokenizer", "init_device", "load_weights", "profile_memory", "allocate_kv_cache"}
    assert names <= {step.name for step in steps}
    assert {"front_end", "EngineCore", "Worker"} <= {step.attributes["process"] for step in steps}
    for step in steps:
        assert step.end_ns is not None
        assert step.start_ns <= step.end_ns <= engine.end_ns


def test_the_engine_is_imported_before_it_is_started(demo: Demo) -> None:
    (engine,) = [step for step in demo.run.steps if step.kind == "engine"]
    imports = [step for step in demo.run.steps if step.name == "import_engine"]
    (imported,) = [step for step in imports if step.attributes["process"] == "front_end"]
    assert imported.end_ns is not None
    assert imported.end_ns <= engine.start_ns


def test_engine_core_and_worker_are_forked_with_everything_imported(demo: Demo) -> None:
    seconds = {"front_end": 0.0, "EngineCore": 0.0, "Worker": 0.0}
    for step in demo.run.steps:
        if step.name == "import_engine" and step.end_ns is not None:
            seconds[str(step.attributes["process"])] += (step.end_ns - step.start_ns) / 1e9
    assert seconds["EngineCore"] + seconds["Worker"] < seconds["front_end"] / 2, seconds


def test_the_trace_has_one_root_no_orphans_and_spans_of_other_processes(demo: Demo) -> None:
    ids = {span.span: span for span in demo.spans}
    assert [span.name for span in demo.spans if span.parent is None] == ["node init"]
    assert [span.name for span in demo.spans if span.parent is not None and span.parent not in ids] == []
    of_processes = [span for span in demo.spans if "phasebus.process" in span.resource]
    assert {"front_end", "EngineCore", "Worker"} <= {span.resource["phasebus.process"] for span in of_processes}
    for span in of_processes:
        ancestors = [span.name]
        while span.parent is not None:
            span = ids[span.parent]  # noqa: PLW2901  # walking up
            ancestors.append(span.name)
        assert ancestors[-2:] in (["phase engine_init", "node init"], ["phase engine_process", "node init"])


def test_the_spans_of_the_trace_are_the_steps_of_the_journal(demo: Demo) -> None:
    assert {span.span for span in demo.spans} == {step.id for step in demo.run.steps}


def test_no_process_is_left_behind(demo: Demo) -> None:
    assert demo.left_behind == []
    assert demo.run.state == "closed"
