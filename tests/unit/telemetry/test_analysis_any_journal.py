"""Every analysis accepts any journal: deep, wide, with several roots, or with parents in a circle."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import import_module
from itertools import pairwise
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasebus.telemetry.analysis import (
    blame,
    critical_path,
    diff,
    gaps,
    nesting,
    page_state,
    perfetto,
    plot,
    stragglers,
    walk,
)
from phasebus.telemetry.journal import RecordedStep, Run
from tests.support.runs import run_of, step

perfetto_trace = import_module("phasebus.telemetry.analysis.perfetto")  # the package has a function of that name

ANALYSES: list[Callable[[Run], Any]] = [
    blame,
    critical_path,
    gaps,
    page_state,
    perfetto,
    plot,
    stragglers,
    lambda run: diff(run, run),
]


def deep(kind: str) -> Run:
    steps = [step(f"s{at}", at / 100, 80 - at / 100, f"s{at - 1}" if at else None, kind=kind) for at in range(1200)]
    return run_of(*steps)


def nested_by_time() -> Run:
    inner = [step(f"s{at}", at / 100, 80 - at / 100, "root", kind="engine_step") for at in range(1000)]
    return run_of(step("root", 0, 90), *inner)


def wide(kind: str) -> Run:
    steps = [step(f"s{at}", at / 1000, (at + 1.5) / 1000, "root", kind=kind) for at in range(500)]
    return run_of(step("root", 0, 40, kind="node"), *steps)


def odd() -> Run:
    return run_of(
        step("a", 0, 5),
        step("b", 2, 9, "missing"),
        step("c", 1, 2, "d"),
        step("d", 1, 3, "c"),
        step("e", 4, 4, "e"),
        step("f", 7, 6, "a", error="bad \udcff \x1b]0;x\x07"),
        step("__proto__", 3, None, "a", process="\x00", loss=float("nan")),
    )


@pytest.mark.parametrize("analysis", ANALYSES)
@pytest.mark.parametrize(
    "run",
    [deep("phase"), deep("engine_step"), nested_by_time(), wide("phase"), wide("engine_step"), odd(), run_of()],
    ids=["deep", "deep engine", "nested by time", "wide", "wide engine", "odd", "empty"],
)
def test_every_analysis_accepts_any_journal(analysis: Callable[[Run], Any], run: Run) -> None:
    result = analysis(run)
    written = json.dumps(result, ensure_ascii=False, allow_nan=False) if isinstance(result, dict) else str(result)
    assert written.encode("utf-8").decode("utf-8") == written


@st.composite
def runs(draw: st.DrawFn) -> Run:
    ids = draw(st.lists(st.sampled_from("abcdefghij"), unique=True))
    steps: list[RecordedStep] = []
    for each in ids:
        start = draw(st.integers(0, 20))
        end = draw(st.none() | st.integers(-3, 12))
        kind = draw(st.sampled_from(["node", "phase", "engine_step", "cluster"]))
        parent = draw(st.none() | st.sampled_from("abcdefghij"))
        process = draw(st.sampled_from(["", "Worker_0", "Worker_1", "EngineCore"]))
        until = None if end is None else start + end
        steps.append(step(each, start, until, parent, kind=kind, process=process))
    return run_of(*steps, end=25)


@given(runs())
def test_every_step_is_placed_exactly_once_inside_at_most_one_other(run: Run) -> None:
    placed = list(walk(run))
    assert sorted(at.step.id for at in placed) == sorted(each.id for each in run.steps)
    for at in placed:
        assert all(each.outer is at and each.depth == at.depth + 1 for each in at.inside)


@given(runs())
def test_the_critical_path_covers_the_root_without_gaps_or_overlaps(run: Run) -> None:
    links = critical_path(run).links
    if not links:
        return
    assert all(one.end_ns == other.start_ns for one, other in pairwise(links))
    root = run.root
    assert root is not None
    assert links[0].start_ns == root.start_ns
    assert sum(link.seconds for link in links) == pytest.approx(root.seconds(run.end_ns))


def test_the_critical_path_of_a_root_that_lies_inside_another_step_is_its_own() -> None:
    run = run_of(step("outer", 0, 9, "outer", kind="engine_step"), step("root", 1, 4, kind="engine_step"))
    assert [(link.step.id, link.seconds) for link in critical_path(run).links] == [("root", 3.0)]


@given(runs())
def test_the_perfetto_trace_has_no_partly_overlapping_slices_on_a_track(run: Run) -> None:
    events = [each for each in perfetto(run)["traceEvents"] if each["ph"] == "X"]
    json.dumps(events)
    for one in events:
        for other in events:
            if one is not other and (one["pid"], one["tid"]) == (other["pid"], other["tid"]):
                first, second = sorted((one, other), key=lambda each: (each["ts"], -each["dur"]))
                ends = second["ts"] + second["dur"] <= first["ts"] + first["dur"]
                assert first["ts"] + first["dur"] <= second["ts"] or ends


@given(runs())
def test_a_step_lies_inside_its_first_ancestor_that_still_ran(run: Run) -> None:
    steps = {each.id: each for each in run.steps}

    def ended(step: RecordedStep) -> int:
        return max(step.start_ns, run.end_ns if step.end_ns is None else step.end_ns)

    def expected(step: RecordedStep) -> str | None:
        parent = at = step.parent if step.parent in steps else None
        passed = {step.id}
        while at is not None and at not in passed:
            if ended(steps[at]) > step.start_ns or ended(steps[at]) == ended(step):
                return at
            passed.add(at)
            at = steps[at].parent if steps[at].parent in steps else None
        return parent if parent != step.id else None

    for at in walk(run):
        if at.step.kind != "engine_step" and at.outer is not None:  # one of a circle has none
            assert at.outer.step.id == expected(at.step)


def overlapping(count: int) -> Run:
    inner = [step(f"s{at}", at / 1000, 80 - at / 1000, "root", kind="engine_step") for at in range(count)]
    return run_of(step("root", 0, 90), *inner)


def chain(count: int, kind: str) -> list[RecordedStep]:
    return [step(f"c{at}", at / 1000, 40 - at / 1000, f"c{at - 1}" if at else None, kind=kind) for at in range(count)]


def after_a_chain(count: int) -> Run:
    inner = [step(f"s{at}", 50 + at / 1000, 51 + at / 1000, f"c{count - 1}") for at in range(count)]
    return run_of(*chain(count, "phase"), *inner)


def beside_a_chain(count: int) -> Run:
    inner = [step(f"s{at}", 4 + at / 1000, 5 + at / 1000, "other", kind="engine_step") for at in range(count)]
    return run_of(*chain(count, "engine_step"), step("other", 0, 90), *inner)


def with_gaps(count: int) -> Run:
    """Return a run in which nothing runs between two steps, and between some of them only one that waits."""
    inner = [step(f"s{at}", at, at + 0.5, "root") for at in range(0, count, 2)]
    waits = [step(f"wait_for_{at}", at, at + 0.7, "root") for at in range(1, count, 2)]
    return run_of(step("root", 0, count), *inner, *waits, end=count)


@pytest.mark.parametrize("analysis", ANALYSES)
@pytest.mark.parametrize(
    "make", [overlapping, after_a_chain, beside_a_chain, with_gaps, lambda count: run_of(*chain(count, "phase"))]
)
def test_an_analysis_of_twice_as_many_steps_runs_about_twice_as_many_lines(
    analysis: Callable[[Run], Any], make: Callable[[int], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((nesting, "_MAX_ACTIVE"), (nesting, "_MAX_CHECKS"), (perfetto_trace, "_MAX_AROUND")):
        monkeypatch.setattr(module, name, 8)
    assert lines_of(analysis, make(80)) < 2.5 * lines_of(analysis, make(40))


def lines_of(analysis: Callable[[Run], Any], run: Run) -> int:
    """Return how many lines of the analyses run."""
    lines = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace if "/telemetry/analysis/" in frame.f_code.co_filename else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        analysis(run)
    finally:
        sys.settrace(before)
    return lines
