"""The queries of docs/reference/metrics.md against a real Prometheus that scrapes 20 pods, some of which restart or fail."""

from __future__ import annotations

from bisect import bisect_left
from pathlib import Path
from statistics import mean

import pytest

from phasebus.telemetry import names
from tests.integration.prometheus.conftest import AGE, FAILING, FIRST, MODELS, RUNNING, SECOND
from tests.support.metrics_page import queries
from tests.support.prometheus import Prometheus


def finished(model: str | None = None) -> list[float]:
    """The durations of the starts that finished, of one model or of both, in order."""
    starts = [*((number, FIRST[number]) for number in FIRST if number not in FAILING), *SECOND.items()]
    return sorted(seconds for number, seconds in starts if model in (None, MODELS[number]))


@pytest.fixture
def scraping(pods: Prometheus) -> Prometheus:
    return pods


def answer(scraping: Prometheus, heading: str, label: str) -> dict[str, float]:
    """The values that the query under a heading of docs/reference/metrics.md has now, by one of its labels."""
    return {labels[label]: value for labels, value in scraping.query(queries()[heading])}


@pytest.mark.parametrize("model", ["small", "large"])
@pytest.mark.parametrize(
    ("heading", "quantile"),
    [("Median time to ready, by model", 0.5), ("95th percentile of the time to ready, by model", 0.95)],
)
def test_quantile_of_the_time_to_ready_lies_in_the_bucket_of_the_exact_one(
    scraping: Prometheus, heading: str, quantile: float, model: str
) -> None:
    starts = finished(model)
    exact = starts[max(0, round(quantile * len(starts)) - 1)]
    bounds = (0, *names.STARTUP_BUCKETS)
    upper = bisect_left(bounds, exact)
    assert bounds[upper - 1] <= answer(scraping, heading, "model")[model] <= bounds[upper]


def test_gauge_of_the_last_start_gives_the_quantile_over_pods(scraping: Prometheus) -> None:
    last = [{**FIRST, **SECOND}[number] for number in range(10)]
    found = answer(scraping, "Exact 95th percentile of the last start of each pod", "model")["small"]
    assert sorted(last)[-2] <= found <= max(last)


def test_every_start_of_pods_that_restart_is_counted_once(scraping: Prometheus) -> None:
    query = 'sum(increase(phasebus_node_startups_total{outcome="finished"}[7d]))'
    [(_, found)] = scraping.query(query)
    assert found == pytest.approx(len(finished()), rel=0.1)


def test_share_of_failed_starts_is_that_of_each_model(scraping: Prometheus) -> None:
    found = answer(scraping, "Share of starts that failed", "model")
    assert found["small"] == 0
    assert found["large"] == pytest.approx(len(FAILING) / 10, rel=0.2)


def test_reasons_of_failures_are_counted_by_phase_and_error(scraping: Prometheus) -> None:
    [(labels, pods)] = scraping.query(queries()["Reasons of failures, by pods"])
    assert (labels["phase"], labels["error"], pods) == ("engine_init", "MemoryError", len(FAILING))


def test_mean_duration_of_each_phase_is_that_of_the_finished_starts(scraping: Prometheus) -> None:
    found = answer(scraping, "Mean duration of each phase", "phase")
    assert found["download"] == pytest.approx(mean(finished()) / 4, rel=0.1)
    assert found["engine_init"] == pytest.approx(mean(finished()) / 2, rel=0.1)
    assert "pre_initialization" not in found  # it has no end in this test


def test_exclusive_times_of_the_engines_steps_add_up_to_its_mean_start(scraping: Prometheus) -> None:
    found = answer(scraping, "Exclusive time of each engine step, for each start", "step")
    engine = mean(finished()) / 2
    assert sum(found.values()) == pytest.approx(engine, rel=0.1)
    for step in ("load_model", "load_weights", "warm_up"):
        assert found[step] == pytest.approx(engine / 3, rel=0.1)
    assert found["unattributed"] == pytest.approx(0, abs=0.01)


def test_only_the_start_that_runs_has_an_age(scraping: Prometheus) -> None:
    found = answer(scraping, "Age of the starts that are running", "instance")
    assert list(found) == [f"pod-{RUNNING}"]
    assert found[f"pod-{RUNNING}"] >= AGE


def test_phase_that_runs_three_times_as_long_as_usual_is_found(scraping: Prometheus) -> None:
    found = scraping.query(queries()["Phases that run three times as long as usual"])
    assert [(labels["instance"], labels["phase"]) for labels, _ in found] == [(f"pod-{RUNNING}", "engine_init")]


def test_bytes_of_a_file_are_counted_with_its_download_only(scraping: Prometheus) -> None:
    found = answer(scraping, "Bytes per second that downloads receive", "instance")
    assert found[f"pod-{RUNNING}"] > 0
    [(_, moved)] = scraping.query("sum(max_over_time(phasebus_progress_bytes_total[7d]))")
    assert moved == 10**6


def test_example_query_of_every_family_is_valid(scraping: Prometheus) -> None:
    for family in names.all_families():
        scraping.query(family.example)
        scraping.query(family.of_cluster().example)


def test_every_query_of_the_page_has_a_test() -> None:
    source = Path(__file__).read_text()
    assert [heading for heading in queries() if heading not in source] == []
