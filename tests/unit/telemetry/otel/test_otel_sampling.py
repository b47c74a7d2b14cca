from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

from phasebus.telemetry.otel import TraceSampler, TraceSettings

TRACE = 0x4BF92F3577B34DA6A3CE929D0E0E4736


def sampler(name: str, ratio: str = "1") -> TraceSampler:
    environment = {"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": ratio}
    return TraceSampler(TraceSettings.from_environment(environment))


@pytest.mark.parametrize(
    ("name", "without_parent", "parent_sampled", "parent_not_sampled"),
    [
        ("", True, True, False),
        ("parentbased_always_on", True, True, False),
        ("parentbased_always_off", False, True, False),
        ("always_on", True, True, True),
        ("always_off", False, False, False),
    ],
)
def test_a_trace_is_kept_as_the_specification_has_it(
    name: str, without_parent: bool, parent_sampled: bool, parent_not_sampled: bool
) -> None:
    keeps = sampler(name).keeps
    assert (keeps(TRACE), keeps(TRACE, True), keeps(TRACE, False)) == (
        without_parent,
        parent_sampled,
        parent_not_sampled,
    )


@given(trace=st.integers(1, 2**128 - 1), ratio=st.floats(0, 1))
def test_a_ratio_keeps_the_traces_that_every_other_sdk_keeps(trace: int, ratio: float) -> None:
    expected = TraceIdRatioBased(ratio).should_sample(None, trace, "").decision is Decision.RECORD_AND_SAMPLE
    assert sampler("traceidratio", str(ratio)).keeps(trace) is expected
    assert sampler("parentbased_traceidratio", str(ratio)).keeps(trace) is expected
    assert sampler("parentbased_traceidratio", str(ratio)).keeps(trace, True)


@pytest.mark.parametrize(("name", "kept"), [("parentbased_always_off", True), ("always_off", False)])
def test_traces_that_the_engine_has_sampled_are_sampled_again_only_without_parents(name: str, kept: bool) -> None:
    assert sampler(name).keeps_recorded(TRACE) is kept
