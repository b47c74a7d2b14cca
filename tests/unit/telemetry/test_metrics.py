from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from phasebus.telemetry.metrics import observe_many

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


def one_after_the_other(histogram: Histogram, amounts: list[float]) -> None:
    for amount in amounts:
        histogram.observe(amount)
