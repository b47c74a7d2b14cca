from __future__ import annotations

import platform

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from phasebus.telemetry import Metrics
from phasebus.telemetry.metrics import observe_many
from phasebus.telemetry.names import KINDS
from tests.support.exposition import samples, total

AMOUNTS = st.one_of(st.floats(0, 100), st.sampled_from([0.1, 0.5, 1.0, float("inf")]))


@given(st.lists(AMOUNTS))
def test_many_at_once_are_observed_as_one_after_the_other(amounts: list[float]) -> None:
    together, single = CollectorRegistry(), CollectorRegistry()
    for registry, observe in ((together, observe_many), (single, one_after_the_other)):
        histogram = Histogram("h", "", ["label"], buckets=(0.1, 0.5, 1.0), registry=registry)
        observe(histogram.labels("x"), amounts)
    names = [("h_bucket", {"label": "x", "le": le}) for le in ("0.1", "0.5", "1.0", "+Inf")]
    for name, labels in [*names, ("h_count", {"label": "x"})]:
        assert together.get_sample_value(name, labels) == single.get_sample_value(name, labels)
    totals = [each.get_sample_value("h_sum", {"label": "x"}) for each in (together, single)]
    assert totals[0] is not None
    assert totals[1] is not None
    assert totals[0] == totals[1] or abs(totals[0] - totals[1]) < 1e-6
    assert generate_latest(together)


def text_of(metrics: Metrics) -> str:
    return metrics.render("text/plain")[0].decode()


def test_build_info_has_the_versions_of_what_runs() -> None:
    (build,) = samples(text_of(Metrics("1.2")), "phasebus_build_info")
    assert build.labels["version"] == "1.2"
    assert build.labels["python"] == platform.python_version()
    assert set(build.labels) == {"version", "python", "ray", "vllm"}


def test_process_metrics_are_exported() -> None:
    assert total(text_of(Metrics()), "process_resident_memory_bytes") > 0


def test_resource_is_exported_as_target_info_without_ids_and_secrets() -> None:
    metrics = Metrics()
    attributes = {
        "service.name": "phasebus",
        "k8s.pod.name": "pod",
        "1st": 1,
        "service.instance.id": "random",
        "phasebus.run": "run",
        "token": "Bearer abcdefghijklmnop",
    }
    metrics.describe_target(attributes)
    (target,) = samples(text_of(metrics), "target_info")
    assert {"service_name": "phasebus", "k8s_pod_name": "pod", "_1st": "1"}.items() <= target.labels.items()
    assert "random" not in target.labels.values()
    assert "run" not in target.labels.values()
    assert "abcdefghijklmnop" not in text_of(metrics)


def test_keys_that_become_one_label_are_joined_and_no_label_begins_with_two_underscores() -> None:
    metrics = Metrics()
    metrics.describe_target({"team.name": "a", "team_name": "b", "__name__": "x", "k8s..pod": "p"})
    (target,) = samples(text_of(metrics), "target_info")
    assert target.labels == {"team_name": "a;b", "_name_": "x", "k8s_pod": "p"}


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("application/openmetrics-text;version=1.0.0;q=0, text/plain", "text/plain"),
        ("application/openmetrics-text; q=0.000 ;version=1.0.0", "text/plain"),
        ("application/openmetrics-text;version=1.0.0;q=0.05", "application/openmetrics-text"),
    ],
)
def test_format_of_quality_0_is_not_chosen(accept: str, content_type: str) -> None:
    assert Metrics().render(accept)[1].startswith(content_type)


def test_metrics_are_rendered_for_an_accept_header_that_prometheus_client_raises_for() -> None:
    body, content_type = Metrics().render("application/openmetrics-text;version=abc")
    assert content_type.startswith(("text/plain", "application/openmetrics-text"))  # older versions do not raise
    assert b"phasebus_build_info" in body


def test_no_series_has_the_time_of_its_creation() -> None:
    metrics = Metrics()
    for kind in KINDS:
        metrics.steps(kind, "x", {})
    assert "_created" not in text_of(metrics)
    assert "_created" not in metrics.render("application/openmetrics-text; version=1.0.0")[0].decode()


def test_versions_of_what_is_not_installed_are_empty() -> None:
    metrics = Metrics("1", distributions={"ray": ("no-such-package",), "vllm": ()})
    (build,) = samples(text_of(metrics), "phasebus_build_info")
    assert (build.labels["ray"], build.labels["vllm"]) == ("", "")


def one_after_the_other(histogram: Histogram, amounts: list[float]) -> None:
    for amount in amounts:
        histogram.observe(amount)
