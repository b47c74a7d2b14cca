from __future__ import annotations

from phasebus.initializer.engines.vllm.reports import ProcessKey
from phasebus.initializer.engines.vllm.step_places import StepPlaces

CORE, WORKER = ProcessKey(pid=1), ProcessKey(pid=2)


def places() -> StepPlaces:
    """The core's init, its executor's init, which has ended, and what it does since then."""
    known = StepPlaces()
    known.begin("core", "engine", CORE, 0)
    known.begin("executor", "core", CORE, 1)
    known.end("executor", 10)
    known.begin("prepare", "core", CORE, 11)
    return known


def test_step_whose_parent_runs_belongs_to_its_parent() -> None:
    known = places()
    assert known.begin("profile", "prepare", WORKER, 12) == "prepare"
    assert known.end("profile", 13) == "prepare"


def test_step_whose_parent_has_ended_belongs_to_the_current_step_of_the_ancestor() -> None:
    known = places()
    assert known.begin("warm", "executor", WORKER, 12) == "prepare"
    assert known.end("warm", 13) == "prepare"


def test_step_that_outlives_its_parent_belongs_to_one_that_contains_it() -> None:
    known = places()
    assert known.begin("cache", "prepare", WORKER, 12) == "prepare"
    known.end("prepare", 13)
    assert known.end("cache", 14) == "core"


def test_step_whose_parents_end_is_reported_late_is_placed_at_its_own_end() -> None:
    known = StepPlaces()
    known.begin("core", "engine", CORE, 0)
    known.begin("executor", "core", CORE, 1)
    assert known.begin("warm", "executor", WORKER, 12) == "executor"
    known.end("executor", 10)
    known.begin("prepare", "core", CORE, 11)
    assert known.end("warm", 13) == "prepare"


def test_parents_that_are_unknown_or_circular_are_left_as_they_are() -> None:
    known = StepPlaces()
    assert known.begin("a", "b", CORE, 5) == "b"
    assert known.begin("b", "a", CORE, 6) in ("a", "b", None)
    known.begin("late", "nothing", CORE, 7)
    assert known.end("late", 8) == "nothing"


def test_beginning_within_the_rounding_of_the_parents_is_moved_to_it() -> None:
    known = StepPlaces()
    known.begin("start", None, CORE, 100)
    assert known.after_start("start", 95, 10) == 100
    assert known.after_start("start", 80, 10) == 80
    assert known.after_start("start", 101, 10) == 101
