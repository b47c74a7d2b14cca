from __future__ import annotations

import platform
import subprocess
import sys

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from phasebus.telemetry import RunIdentity
from phasebus.telemetry.run import Caller, parse_traceparent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_a_run_joins_the_trace_that_the_environment_names() -> None:
    identity = RunIdentity.fresh("node-1", {"TRACEPARENT": f"00-{TRACE}-{SPAN}-01"})
    assert (identity.trace, identity.parent, identity.node) == (TRACE, SPAN, "node-1")
    assert identity.traceparent("b" * 16) == f"00-{TRACE}-{'b' * 16}-01"


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True)])
def test_the_flags_of_the_caller_are_kept_and_the_engine_is_always_recorded(flags: str, sampled: bool) -> None:
    header = f"00-{TRACE}-{SPAN}-{flags}"
    identity = RunIdentity.fresh("node-1", {"TRACEPARENT": header})
    assert parse_traceparent(header) == Caller(trace=TRACE, span=SPAN, sampled=sampled)
    assert identity.of_member("node-2", "c" * 16).parent_sampled is identity.parent_sampled is sampled
    assert identity.traceparent("b" * 16).endswith("-01")


@pytest.mark.parametrize("header", ["", "nonsense", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01"])
def test_an_invalid_traceparent_is_as_good_as_none(header: str) -> None:
    assert parse_traceparent(header) is None
    identity = RunIdentity.fresh(environment={"TRACEPARENT": header})
    assert len(identity.trace) == 32
    assert (identity.parent, identity.parent_sampled) == (None, None)


@pytest.mark.parametrize(
    "header",
    [
        f"00-{TRACE}-{SPAN}-01",
        f" 00-{TRACE}-{SPAN}-01\t",
        f"00-{TRACE}-{SPAN}-ff",
        f"00-{TRACE}-{SPAN}-02",
        f"00-{TRACE}-{SPAN}-01-more",
        f"01-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01-of-the-future",
        f"cc-{TRACE}-{SPAN}-01.of-the-future",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-0x",
        f"00-{TRACE[:-1]}\uff11-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-01",
    ],
)
def test_traceparent_is_parsed_as_by_opentelemetry(header: str) -> None:
    extracted = TraceContextTextMapPropagator().extract({"traceparent": header}, Context())
    context = trace.get_current_span(extracted).get_span_context()
    expected = (context.trace_id, context.span_id, context.trace_flags.sampled) if context.is_valid else None
    parsed = parse_traceparent(header)
    assert (parsed and (int(parsed.trace, 16), int(parsed.span, 16), parsed.sampled)) == expected


def test_reading_a_journal_imports_nothing_of_opentelemetry() -> None:
    """Its import reads variables, and logs a stack trace for some values, before they are checked."""
    script = "import sys, phasebus.telemetry.journal; sys.exit('opentelemetry' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0


def test_two_runs_have_different_ids() -> None:
    first, second = RunIdentity.fresh(environment={}), RunIdentity.fresh(environment={})
    assert first.trace != second.trace
    assert first.run != second.run


def test_runs_that_begin_within_a_second_are_sorted_by_their_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    for rest_ns in (0, 1_000_000, 500_000_000, 999_999_999):
        monkeypatch.setattr(
            "phasebus.telemetry.run.time.time_ns", lambda rest_ns=rest_ns: 1_800_000_000 * 10**9 + rest_ns
        )
        runs.append(RunIdentity.fresh(environment={}).run)
    assert runs == sorted(runs)
    assert len({run.partition("-")[0] for run in runs}) == 1


def test_name_of_a_machine_that_is_no_utf8_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "node", lambda: b"rechner-\xfc".decode("utf-8", "surrogateescape"))
    assert RunIdentity.fresh(environment={}).node == "rechner-\\udcfc"
