from __future__ import annotations

from typing import Any

import pytest

from phasebus.initializer.engines.vllm.inside.iterations import Iterations
from phasebus.initializer.engines.vllm.iteration_metrics import IterationMetrics, IterationsNotice
from phasebus.telemetry import Metrics


def counted(*requests: int, every: int = 0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    reported: list[dict[str, Any]] = []
    sampled: list[dict[str, Any]] = []
    iterations = Iterations(reported.append, lambda began, took, attributes: sampled.append(attributes), every)
    for running in requests:
        iterations.record(running, 1, 0.5, 3, 2)
    return reported[-1], sampled


def notice(**fields: Any) -> IterationsNotice:
    counts, _ = counted(3, 3, 0)
    return IterationsNotice.model_validate({"event": "iterations", "engine": 0, "served": False} | counts | fields)


def test_an_iteration_is_counted_with_what_it_worked_on_and_idle_time_is_not() -> None:
    counts, _ = counted(3, 3, 0)
    assert sum(counts["seconds"]) == 2  # the first began after idleness, of unknown duration
    assert (counts["prompt_tokens"], counts["generation_tokens"]) == (9, 6)
    assert (counts["waiting"], counts["cache"]) == (1, 0.5)


@pytest.mark.parametrize(("every", "samples"), [(0, 0), (1, 10), (5, 2), (1000, 0)])
def test_one_iteration_in_so_many_is_sampled(every: int, samples: int) -> None:
    _, sampled = counted(*[1] * 10, 0, every=every)
    assert len(sampled) == samples


def test_counts_become_histograms_with_every_bucket() -> None:
    metrics, iterations = Metrics("1"), IterationMetrics()
    metrics.registry.register(iterations)
    iterations.record("something else")
    assert b"phasebus_engine_iteration" not in metrics.render("text/plain")[0]
    iterations.record(notice())
    value = metrics.registry.get_sample_value
    assert value("phasebus_engine_iteration_requests_bucket", {"engine": "0", "le": "4.0"}) == 2
    assert value("phasebus_engine_iteration_requests_bucket", {"engine": "0", "le": "+Inf"}) == 2
    assert value("phasebus_engine_iteration_duration_seconds_count", {"engine": "0"}) == 2
    assert value("phasebus_engine_tokens_total", {"engine": "0", "type": "prompt"}) == 9


def test_what_vllm_serves_by_itself_is_not_served_again() -> None:
    iterations = IterationMetrics()
    iterations.record(notice(served=True))
    assert {family.name for family in iterations.collect()} == {
        "phasebus_engine_iteration_duration_seconds",
        "phasebus_engine_iteration_requests",
    }
