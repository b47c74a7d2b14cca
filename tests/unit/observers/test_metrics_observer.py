from __future__ import annotations

import pytest

from phasebus.bus import AttributeValue, StepFailed, StepFinished, StepProgress, StepsCounted, StepStarted
from phasebus.observers import MetricsObserver
from phasebus.telemetry import Metrics
from phasebus.telemetry.metrics import MAX_SERIES, OVERFLOW

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


def test_a_failed_step_is_counted_under_its_outcome_and_not_timed(metrics: Metrics, observer: MetricsObserver) -> None:
    failed = StepFailed(step=STEP, kind="phase", name="download", seconds=2.0, outcome="cancelled", error=ValueError())
    observer.observe(failed)
    assert value(metrics, "phasebus_phases_total", phase="download", outcome="cancelled") == 1
    assert value(metrics, "phasebus_phase_duration_seconds_count", phase="download") == 0


def test_attributes_of_a_step_feed_the_counters_of_its_kind(metrics: Metrics, observer: MetricsObserver) -> None:
    attributes: dict[str, AttributeValue] = {"model": "m", "source": "hf", "bytes": 1000, "retries": 2}
    observer.observe(StepFinished(step=STEP, kind="download", name="m", seconds=1.0, attributes=attributes))
    labels = {"model": "m", "source": "hf"}
    assert value(metrics, "phasebus_download_bytes_total", **labels, outcome="finished") == 1000
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
    assert 'phasebus_download_bytes_total{model="m",outcome="finished",source="hf"} 5.0' in text


def test_label_values_are_printable_and_bounded(metrics: Metrics, observer: MetricsObserver) -> None:
    odd: dict[str, AttributeValue] = {"model": 2**20_000, "source": float("nan")}
    observer.observe(StepStarted(step=STEP, kind="download", name="m", attributes=odd))
    for name in ("\ud800", "\x1b]0;title\x07", "x" * 100_000):
        observer.observe(StepStarted(step=STEP + name[:1], kind="phase", name=name))
    body, _ = metrics.render("text/plain")
    assert b"\x1b" not in body
    assert max(map(len, body.splitlines())) < 1_000


def test_label_values_beyond_the_limit_are_counted_together(metrics: Metrics, observer: MetricsObserver) -> None:
    for number in range(MAX_SERIES + 5):
        observer.observe(StepFinished(step=STEP, kind="phase", name=f"phase {number}", seconds=1.0))
    assert value(metrics, "phasebus_phase_duration_seconds_count", phase=OVERFLOW) == 5
    assert value(metrics, "phasebus_phases_total", phase=OVERFLOW, outcome="finished") == 5
