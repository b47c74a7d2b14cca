from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasebus.telemetry.analysis import blame, time_to_ready
from phasebus.telemetry.journal import RecordedStep, Run

SECOND = 10**9


def step(name: str, start: float, end: float | None, parent: str | None = None) -> RecordedStep:
    return RecordedStep(
        id=name,
        parent=parent,
        node="n",
        kind="phase",
        name=name,
        start_ns=int(start * SECOND),
        end_ns=None if end is None else int(end * SECOND),
    )


def run_of(*steps: RecordedStep, end: float = 100.0) -> Run:
    return Run(
        path=Path("x"),
        run="r",
        node="n",
        trace="t",
        phasebus="0",
        start_ns=0,
        end_ns=int(end * SECOND),
        state="closed",
        steps=tuple(sorted(steps, key=lambda each: each.start_ns)),
        moments=(),
    )


def test_the_longest_step_is_first_with_its_own_time() -> None:
    rows = blame(run_of(step("node", 0, 10), step("engine", 2, 10, "node"), step("load", 3, 7, "engine")))
    assert [(row.step.name, row.depth, row.seconds, row.own) for row in rows] == [
        ("node", 0, 10.0, 2.0),
        ("engine", 1, 8.0, 4.0),
        ("load", 2, 4.0, 4.0),
    ]
    assert rows[1].share == pytest.approx(0.8)


def test_steps_that_ran_side_by_side_are_not_counted_twice() -> None:
    rows = blame(run_of(step("node", 0, 10), step("download", 1, 6, "node"), step("place", 4, 8, "node")))
    assert {row.step.name: row.own for row in rows}["node"] == pytest.approx(3.0)


def test_a_wait_owns_only_the_time_in_which_no_other_step_ran() -> None:
    waits = [step("wait_for_engine_core", 2, 8, "node"), step("wait_for_peers", 3, 7.5, "node")]
    rows = blame(run_of(step("node", 0, 10), *waits, step("import", 1, 4, "node"), step("load", 6, 9, "node")))
    own = {row.step.name: row.own for row in rows}
    assert own == {"node": 2.0, "load": 3.0, "import": 3.0, "wait_for_engine_core": 2.0, "wait_for_peers": 2.0}


def test_a_step_that_still_runs_counts_up_to_now() -> None:
    run = run_of(step("node", 0, None), end=7.0)
    assert time_to_ready(run) == 7.0
    assert blame(run)[0].seconds == 7.0


def test_a_run_without_steps_has_no_rows() -> None:
    assert blame(run_of()) == ()
    assert time_to_ready(run_of()) == 0.0


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.booleans()), max_size=12))
def test_own_time_is_never_negative_and_never_more_than_the_whole(intervals: list[tuple[int, int, bool]]) -> None:
    steps = [
        step(f"wait_for_{i}" if waits else str(i), min(a, b), max(a, b)) for i, (a, b, waits) in enumerate(intervals)
    ]
    for row in blame(run_of(*steps)):
        assert -1e-9 <= row.own <= row.seconds + 1e-9
