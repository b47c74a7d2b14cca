from __future__ import annotations

import pytest

from phasebus.telemetry import RunIdentity
from phasebus.telemetry.run import parse_traceparent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_a_run_joins_the_trace_that_the_environment_names() -> None:
    identity = RunIdentity.fresh("node-1", {"TRACEPARENT": f"00-{TRACE}-{SPAN}-01"})
    assert (identity.trace, identity.parent, identity.node) == (TRACE, SPAN, "node-1")
    assert identity.traceparent("b" * 16) == f"00-{TRACE}-{'b' * 16}-01"


@pytest.mark.parametrize("header", ["", "nonsense", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01"])
def test_an_invalid_traceparent_is_as_good_as_none(header: str) -> None:
    assert parse_traceparent(header) == (None, None)
    identity = RunIdentity.fresh(environment={"TRACEPARENT": header})
    assert len(identity.trace) == 32
    assert identity.parent is None


def test_two_runs_have_different_ids() -> None:
    first, second = RunIdentity.fresh(environment={}), RunIdentity.fresh(environment={})
    assert first.trace != second.trace
    assert first.run != second.run
