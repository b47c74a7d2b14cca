from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasebus.telemetry.analysis.exclusive import UNATTRIBUTED, exclusive_seconds
from phasebus.telemetry.journal import RecordedStep
from tests.support.runs import step


def part(name: str, start: float, end: float, parent: str = "engine", process: str = "") -> RecordedStep:
    return step(name, start, end, parent, kind="engine_step", process=process)


WHOLE = step("engine", 0, 10, kind="engine")


def test_time_of_an_inner_step_is_not_that_of_the_outer_one() -> None:
    parts = [part("load_model", 0, 8), part("load_weights", 2, 5, "load_model")]
    assert exclusive_seconds(WHOLE, parts) == {"load_model": 5, "load_weights": 3, UNATTRIBUTED: 2}


def test_steps_that_run_in_parallel_share_their_time() -> None:
    parts = [part("one", 0, 6, process="worker0"), part("two", 4, 10, process="worker1")]
    assert exclusive_seconds(WHOLE, parts) == {"one": 5, "two": 5, UNATTRIBUTED: 0}


def test_step_that_waits_has_the_time_in_which_nothing_else_runs() -> None:
    parts = [part("wait_for_engine_core", 1, 9), part("init_engine_core", 2, 8, process="EngineCore")]
    parts[1].end_ns = 95 * 10**8  # it ends after the wait, and so lies beside it
    assert exclusive_seconds(WHOLE, parts) == {"wait_for_engine_core": 1, "init_engine_core": 7.5, UNATTRIBUTED: 1.5}


def test_time_outside_of_the_whole_step_is_left_out() -> None:
    parts = [part("before", -5, 2), part("after", 9, 20), part("earlier", -9, -6)]
    assert exclusive_seconds(WHOLE, parts) == {"before": 2, "after": 1, "earlier": 0, UNATTRIBUTED: 7}


def test_part_without_an_end_runs_until_the_end_of_the_whole() -> None:
    running = part("running", 4, 5)
    running.end_ns = None
    assert exclusive_seconds(WHOLE, [running]) == {"running": 6, UNATTRIBUTED: 4}


def test_step_without_parts_is_unattributed() -> None:
    assert exclusive_seconds(WHOLE, []) == {UNATTRIBUTED: 10}


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.integers(-5, 15), st.integers(0, 12), st.sampled_from(["", "w0", "w1"])),
        max_size=12,
    )
)
def test_exclusive_times_add_up_to_the_whole_step(drawn: list[tuple[str, int, int, str]]) -> None:
    parts = []
    for number, (name, start, seconds, process) in enumerate(drawn):
        each = part(f"{name}{number}", start, start + seconds, process=process)
        each.name = name
        parts.append(each)
    found = exclusive_seconds(WHOLE, parts)
    assert sum(found.values()) == pytest.approx(10)
    assert min(found.values()) >= 0
