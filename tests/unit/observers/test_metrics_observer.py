from __future__ import annotations

import time

import pytest

from phasebus.bus import AttributeValue, StepFailed, StepFinished, StepProgress, StepsCounted, StepStarted
from phasebus.observers import MetricsObserver
from phasebus.telemetry import Metrics
from phasebus.telemetry.families import OUTCOMES
from phasebus.telemetry.metrics import MAX_ANNOUNCED, MAX_SERIES, OVERFLOW
from phasebus.telemetry.stuck import StuckStep, StuckSteps

STEP = "a" * 16
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("1")


@pytest.fixture
def observer(metrics: Metrics) -> MetricsObserver:
    return MetricsObserver(metrics, trace="f" * 32)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_a_step_is_in_progress_until_it_ends_and_then_timed(metrics: Metrics, observer: MetricsObserver) -> None:
    observer.observe(StepStarted(step=STEP, kind="phase", name="download"))
    assert value(metrics, "phasebus_phase_in_progress", phase="download") == 1
    observer.observe(StepFinished(step=STEP, kind="phase", name="download", seconds=2.0))
    assert value(metrics, "phasebus_phase_in_progress", phase="download") == 0
    labels = {"phase": "download"}
    assert value(metrics, "phasebus_phases_total", **labels, outcome="finished") == 1
    assert value(metrics, "phasebus_phase_duration_seconds_count", **labels) == 1
    assert value(metrics, "phasebus_phase_duration_seconds_sum", **labels) == 2.0


def test_start_of_a_node_creates_all_of_its_series_at_0(metrics: Metrics, observer: MetricsObserver) -> None:
    attributes: dict[str, AttributeValue] = {"model": "m", "phases": "download,engine_init"}
    observer.observe(StepStarted(step=STEP, kind="node", name="n", attributes=attributes))
    assert value(metrics, "phasebus_node_startup_duration_seconds_bucket", model="m", le="60.0") == 0
    for outcome in OUTCOMES:
        assert value(metrics, "phasebus_node_startups_total", model="m", outcome=outcome) == 0
        for phase in ("download", "engine_init"):
            assert value(metrics, "phasebus_phases_total", phase=phase, outcome=outcome) == 0
    assert value(metrics, "phasebus_phase_duration_seconds_sum", phase="download") == 0


def test_start_of_an_engine_creates_the_exclusive_times_of_the_steps_it_lists_at_0(
    metrics: Metrics, observer: MetricsObserver
) -> None:
    attributes: dict[str, AttributeValue] = {"model": "m", "steps": "load_weights,warm_up"}
    observer.observe(StepStarted(step=STEP, kind="engine", name="vllm", attributes=attributes))
    for step in ("load_weights", "warm_up"):
        assert value(metrics, "phasebus_engine_step_self_seconds_total", step=step) == 0
    assert value(metrics, "phasebus_engine_step_self_seconds_total", step="unattributed") == 0


def test_start_of_a_download_creates_the_series_of_its_files_at_0(metrics: Metrics, observer: MetricsObserver) -> None:
    labels: dict[str, AttributeValue] = {"model": "m", "source": "hf"}
    observer.observe(StepStarted(step=STEP, kind="download", name="m", attributes=labels))
    for outcome in ("fetched", "cache_hit", "failed"):
        assert value(metrics, "phasebus_download_files_total", model="m", source="hf", outcome=outcome) == 0
    assert value(metrics, "phasebus_download_bytes_total", model="m", source="hf") == 0


def test_duration_of_the_start_is_a_gauge_once_it_is_ready(metrics: Metrics, observer: MetricsObserver) -> None:
    observer.observe(StepStarted(step=STEP, kind="node", name="n", attributes={"model": "m"}))
    assert value(metrics, "phasebus_node_startup_seconds", model="m") is None
    observer.observe(StepFinished(step=STEP, kind="node", name="n", seconds=12.0, attributes={"model": "m"}))
    assert value(metrics, "phasebus_node_startup_seconds", model="m") == 12.0


def test_age_of_a_running_step_grows_from_its_start_and_ends_with_it(
    metrics: Metrics, observer: MetricsObserver
) -> None:
    began = time.time_ns() - 100 * 10**9
    observer.observe(StepStarted(step=STEP, kind="phase", name="download", time_ns=began))
    observer.observe(StepStarted(step="b" * 16, kind="phase", name="download"))
    assert (value(metrics, "phasebus_phase_age_seconds", phase="download") or 0) >= 100
    observer.observe(StepFinished(step=STEP, kind="phase", name="download", seconds=100.0))
    assert (value(metrics, "phasebus_phase_age_seconds", phase="download") or 0) < 100
    observer.observe(StepFinished(step="b" * 16, kind="phase", name="download", seconds=1.0))
    assert value(metrics, "phasebus_phase_age_seconds", phase="download") is None


def test_age_of_a_step_from_the_future_is_0(metrics: Metrics, observer: MetricsObserver) -> None:
    later = time.time_ns() + 10**12
    observer.observe(StepStarted(step=STEP, kind="phase", name="download", time_ns=later))
    assert value(metrics, "phasebus_phase_age_seconds", phase="download") == 0


def test_stuck_steps_are_counted_by_name_until_they_go_on_or_end(metrics: Metrics, observer: MetricsObserver) -> None:
    name = "phasebus_stuck_steps"
    assert value(metrics, name, kind="", step="") == 0
    for number in range(2):
        observer.observe(StepStarted(step=f"{number:016}", kind="engine_step", name="load_weights"))
    observer.observe(StepStarted(step=STEP, kind="file", name="a-file-of-many", attributes={"model": "m"}))
    observer.record_stuck(stuck("0" * 16, f"{1:016}", STEP, "unknown"))
    assert value(metrics, name, kind="engine_step", step="load_weights") == 2
    assert value(metrics, name, kind="file", step="") == 1
    assert value(metrics, name, kind="", step="") is None
    observer.record_stuck(stuck(STEP))
    assert value(metrics, name, kind="engine_step", step="load_weights") is None
    observer.observe(StepFinished(step=STEP, kind="file", name="a-file-of-many", seconds=1.0))
    assert value(metrics, name, kind="", step="") == 0


def stuck(*steps: str) -> StuckSteps:
    found = [StuckStep(step=each, name="x", process="", pid=0, running_seconds=1, reason="idle") for each in steps]
    return StuckSteps(steps=found)


def test_failed_start_has_a_gauge_with_the_phase_the_step_and_the_error(
    metrics: Metrics, observer: MetricsObserver
) -> None:
    error = MemoryError("no")
    for kind, name, outcome in (
        ("engine_step", "load_weights", "died"),
        ("engine_step", "load_model", "failed"),
        ("phase", "download", "cancelled"),
        ("phase", "engine_init", "failed"),
        ("node", "n", "failed"),
    ):
        failed = StepFailed(
            step=STEP,
            kind=kind,
            name=name,
            seconds=1.0,
            outcome=outcome,  # type: ignore[arg-type]
            error=error,
            attributes={"model": "m"},
        )
        observer.observe(failed)
    labels = {"model": "m", "phase": "engine_init", "step": "load_weights", "outcome": "failed", "error": "MemoryError"}
    assert value(metrics, "phasebus_node_startup_failure_info", **labels) == 1


def test_cancelled_step_is_not_a_failure(metrics: Metrics, observer: MetricsObserver) -> None:
    for number, outcome in enumerate(("cancelled", "failed", "timed_out", "died")):
        failed = StepFailed(
            step=f"{number:016}",
            kind="ray",
            name="start",
            seconds=1.0,
            outcome=outcome,  # type: ignore[arg-type]
            error=ValueError(),
        )
        observer.observe(failed)
    assert value(metrics, "phasebus_ray_failures_total", step="start") == 3


def test_model_that_is_known_only_at_the_end_is_the_label(metrics: Metrics, observer: MetricsObserver) -> None:
    observer.observe(StepStarted(step=STEP, kind="node", name="n", attributes={"model": ""}))
    observer.observe(StepFinished(step=STEP, kind="node", name="n", seconds=1.0, attributes={"model": "m"}))
    assert value(metrics, "phasebus_node_startups_total", model="m", outcome="finished") == 1
    assert value(metrics, "phasebus_node_startup_in_progress", model="") == 0


def test_series_of_a_step_are_those_of_its_start(metrics: Metrics, observer: MetricsObserver) -> None:
    observer.observe(StepStarted(step=STEP, kind="node", name="n", attributes={"model": "path"}))
    observer.observe(StepFinished(step=STEP, kind="node", name="n", seconds=1.0, attributes={"model": "served"}))
    assert value(metrics, "phasebus_node_startups_total", model="path", outcome="finished") == 1
    assert value(metrics, "phasebus_node_startups_total", model="served", outcome="finished") is None


def test_bytes_of_files_are_not_added_to_those_of_their_download(metrics: Metrics, observer: MetricsObserver) -> None:
    for kind in ("download", "file"):
        for done in (0, 100):
            observer.observe(StepProgress(step=kind[:1] * 16, kind=kind, name="m", done=done, unit="By"))
    assert value(metrics, "phasebus_progress_bytes_total", kind="download") == 100
    assert value(metrics, "phasebus_progress_bytes_total", kind="file") is None


def test_a_failed_step_is_counted_under_its_outcome_and_not_timed(metrics: Metrics, observer: MetricsObserver) -> None:
    failed = StepFailed(step=STEP, kind="phase", name="download", seconds=2.0, outcome="cancelled", error=ValueError())
    observer.observe(failed)
    assert value(metrics, "phasebus_phases_total", phase="download", outcome="cancelled") == 1
    assert value(metrics, "phasebus_phase_duration_seconds_count", phase="download") == 0


def test_attributes_of_a_step_feed_the_counters_of_its_kind(metrics: Metrics, observer: MetricsObserver) -> None:
    attributes: dict[str, AttributeValue] = {"model": "m", "source": "hf", "bytes": 1000, "retries": 2}
    observer.observe(StepFinished(step=STEP, kind="download", name="m", seconds=1.0, attributes=attributes))
    labels = {"model": "m", "source": "hf"}
    assert value(metrics, "phasebus_download_bytes_total", **labels) == 1000
    assert value(metrics, "phasebus_download_retries_total", **labels) == 2


def test_a_step_of_an_unknown_kind_is_timed(metrics: Metrics, observer: MetricsObserver) -> None:
    observer.observe(StepStarted(step=STEP, kind="epoch", name="train"))
    observer.observe(StepFinished(step=STEP, kind="epoch", name="train", seconds=1.0))
    labels = {"kind": "epoch", "step": "train"}
    assert value(metrics, "phasebus_step_duration_seconds_count", **labels) == 1


def test_an_exemplar_leads_from_the_histogram_to_the_trace(metrics: Metrics, observer: MetricsObserver) -> None:
    observer.observe(StepFinished(step=STEP, kind="phase", name="download", seconds=2.0))
    body, _ = metrics.render("application/openmetrics-text; version=1.0.0")
    assert f'span_id="{STEP}",trace_id="{"f" * 32}"' in body.decode() or (
        f'trace_id="{"f" * 32}",span_id="{STEP}"' in body.decode()
    )


def test_steps_that_run_when_the_bus_closes_are_no_longer_in_progress(
    metrics: Metrics, observer: MetricsObserver
) -> None:
    observer.observe(StepStarted(step=STEP, kind="node", name="n", attributes={"model": "m"}))
    observer.close()
    assert value(metrics, "phasebus_node_startup_in_progress", model="m") == 0


def test_steps_that_were_counted_together_are_timed_individually(metrics: Metrics, observer: MetricsObserver) -> None:
    attributes: dict[str, AttributeValue] = {"application": "api", "method": "GET", "route": "/x", "status": 200}
    observer.observe(StepsCounted(kind="request", name="api", attributes=attributes, seconds=(0.5, 1.5)))
    labels = {"application": "api", "method": "GET"}
    assert value(metrics, "phasebus_request_duration_seconds_count", **labels) == 2
    assert value(metrics, "phasebus_request_duration_seconds_sum", **labels) == 2.0
    counted = {"application": "api", "method": "GET", "route": "/x", "status": "200", "outcome": "finished"}
    assert value(metrics, "phasebus_requests_total", **counted) == 2


def test_bytes_are_counted_as_they_move_without_those_of_the_first_event() -> None:
    metrics = Metrics("1")
    observer = MetricsObserver(metrics)
    for done in (100, 250, 400):
        observer.observe(StepProgress(step="c" * 16, kind="download", name="m", done=done, total=1000, unit="By"))
    observer.observe(StepProgress(step="d" * 16, kind="training", name="epoch", done=3, total=10))
    assert metrics.registry.get_sample_value("phasebus_progress_bytes_total", {"kind": "download"}) == 300
    assert metrics.registry.get_sample_value("phasebus_progress_bytes_total", {"kind": "training"}) is None


def test_the_kind_of_a_step_is_its_own_even_if_it_has_an_attribute_of_that_name(
    metrics: Metrics, observer: MetricsObserver
) -> None:
    observer.observe(StepFinished(step=STEP, kind="epoch", name="x", seconds=1.0, attributes={"kind": "other"}))
    labels = {"kind": "epoch", "step": "x"}
    assert value(metrics, "phasebus_step_duration_seconds_count", **labels) == 1


def test_a_step_of_another_trace_has_an_exemplar_of_that_trace(metrics: Metrics, observer: MetricsObserver) -> None:
    attributes: dict[str, AttributeValue] = {"trace_id": "1" * 32}
    observer.observe(StepFinished(step=STEP, kind="phase", name="x", seconds=1.0, attributes=attributes))
    assert f'trace_id="{"1" * 32}"' in metrics.render(OPEN_METRICS)[0].decode()


@pytest.mark.parametrize(("step", "trace"), [("a" * 200, "f" * 32), (STEP, "f" * 200)])
def test_ids_that_are_too_long_for_an_exemplar_cost_the_exemplar_only(step: str, trace: str, metrics: Metrics) -> None:
    MetricsObserver(metrics, trace).observe(StepFinished(step=step, kind="phase", name="x", seconds=1.0))
    assert value(metrics, "phasebus_phases_total", phase="x", outcome="finished") == 1
    assert "trace_id" not in metrics.render(OPEN_METRICS)[0].decode()


@pytest.mark.parametrize("amount", [-1, float("nan"), float("inf"), 10**400, "many"])
def test_an_amount_that_no_counter_can_add_is_left_out(
    amount: AttributeValue, metrics: Metrics, observer: MetricsObserver
) -> None:
    labels: dict[str, AttributeValue] = {"model": "m", "source": "hf"}
    for bytes_ in (5, amount):
        attributes = {**labels, "bytes": bytes_}
        observer.observe(StepFinished(step=STEP, kind="download", name="m", seconds=1.0, attributes=attributes))
    text = metrics.render(OPEN_METRICS)[0].decode()
    assert 'phasebus_download_bytes_total{model="m",source="hf"} 5.0' in text


def test_label_values_are_printable_and_bounded(metrics: Metrics, observer: MetricsObserver) -> None:
    odd: dict[str, AttributeValue] = {"model": 2**20_000, "source": float("nan")}
    observer.observe(StepStarted(step=STEP, kind="download", name="m", attributes=odd))
    for name in ("\ud800", "\x1b]0;title\x07", "x" * 100_000):
        observer.observe(StepStarted(step=STEP + name[:1], kind="phase", name=name))
    body, _ = metrics.render("text/plain")
    assert b"\x1b" not in body
    assert max(map(len, body.splitlines())) < 1_000


def test_kinds_beyond_the_limit_are_counted_together(metrics: Metrics, observer: MetricsObserver) -> None:
    for number in range(MAX_SERIES + 5):
        step = f"{number:016x}"
        observer.observe(StepStarted(step=step, kind=f"kind {number}", name="x"))
        observer.observe(StepFinished(step=step, kind=f"kind {number}", name="x", seconds=1.0))
    assert value(metrics, "phasebus_step_duration_seconds_count", kind=OVERFLOW, step=OVERFLOW) == 5
    text = metrics.render("text/plain")[0].decode()
    assert text.count("phasebus_step_in_progress{") == MAX_SERIES + 1


def test_names_that_a_step_announces_are_bounded(metrics: Metrics, observer: MetricsObserver) -> None:
    phases = ",".join(f"phase {number}" for number in range(5_000))
    observer.observe(StepStarted(step=STEP, kind="node", name="n", attributes={"model": "m", "phases": phases}))
    text = metrics.render("text/plain")[0].decode()
    assert text.count("phasebus_phase_duration_seconds_count{") == MAX_ANNOUNCED


def test_label_values_beyond_the_limit_are_counted_together(metrics: Metrics, observer: MetricsObserver) -> None:
    for number in range(MAX_SERIES + 5):
        observer.observe(StepFinished(step=STEP, kind="phase", name=f"phase {number}", seconds=1.0))
    assert value(metrics, "phasebus_phase_duration_seconds_count", phase=OVERFLOW) == 5
    assert value(metrics, "phasebus_phases_total", phase=OVERFLOW, outcome="finished") == 5
