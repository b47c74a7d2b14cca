from __future__ import annotations

import itertools
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasebus.telemetry.analysis import compare, replay, time_to_ready
from phasebus.telemetry.analysis.rank_test import probability_of_larger, smallest_probability
from phasebus.telemetry.journal import Run
from tests.support.runs import cluster, run_of, step

SMALL = st.lists(st.integers(0, 4), min_size=1, max_size=4)


@given(SMALL, SMALL)
def test_the_probability_is_the_share_of_all_divisions_with_a_rank_sum_as_large(
    first: list[int], second: list[int]
) -> None:
    values = [*first, *second]
    ranks = [sum(v < value for v in values) + sum(v <= value for v in values) for value in values]
    observed = sum(ranks[len(first) :])
    sums = [sum(chosen) for chosen in itertools.combinations(ranks, len(second))]
    expected = sum(each >= observed for each in sums) / len(sums)
    assert probability_of_larger(first, second) == pytest.approx(expected)


def test_many_values_have_nearly_the_exact_probability() -> None:
    first, second = [float(2 * n) for n in range(20)], [2 * n + 7.5 for n in range(20)]
    exact = probability_of_larger(first, second)
    assert probability_of_larger([*first, 22.75], second) == pytest.approx(exact, abs=0.01)
    assert probability_of_larger([1.0] * 30, [1.0] * 30) == 1.0
    assert smallest_probability(3, 2) == probability_of_larger([1, 2, 3], [4, 5])


def start(seed: int, slower: float = 1.0) -> Run:
    """Return a start whose parts vary by 1 %; its import, a third of it, takes `slower` times as long."""
    random = Random(seed)
    root = step("node", 0, 9, kind="node")
    parts = [
        step("download", 0, 3, "node"),
        step("import", 3, 6, "node", kind="engine_step", process="EngineCore_DP0"),
        step("load", 6, 9, "node", kind="engine_step", process="Worker_TP0"),
    ]
    whole = run_of(root, *parts, end=9)
    return replay(whole, lambda at: random.gauss(1, 0.01) * (slower if at.step.name == "import" else 1))


def test_a_slower_step_is_found_and_named_and_equal_series_do_not_differ() -> None:
    usual = [start(seed) for seed in range(10)]
    slower = compare(usual, [start(100 + seed, 1.15) for seed in range(10)])
    assert slower.slower
    assert slower.whole.significant
    assert slower.culprit is not None
    assert (slower.culprit.name, slower.culprit.process) == ("import", "EngineCore")
    assert slower.culprit.own_change == pytest.approx(0.45, abs=0.1)
    equal = compare(usual, [start(200 + seed) for seed in range(10)])
    assert (equal.slower, equal.culprit, equal.enough) == (False, None, True)


def test_a_faster_start_is_significant_and_not_slower() -> None:
    faster = compare([start(seed, 1.15) for seed in range(10)], [start(100 + seed) for seed in range(10)])
    assert (faster.slower, faster.whole.significant) == (False, True)
    assert faster.culprit is not None
    assert faster.culprit.change < 0


def test_few_runs_are_not_enough_and_none_are_an_error() -> None:
    few = compare([start(1), start(2)], [start(3, 2), start(4, 2)])
    assert (few.enough, few.slower) == (False, False)
    with pytest.raises(ValueError, match="no run"):
        compare([], [start(1)])


def test_small_shifts_do_not_count_however_certain() -> None:
    exact = [cluster(2) for _ in range(10)]
    assert not compare(exact, [replay(run, lambda _: 1.01) for run in exact]).slower
    assert compare(exact, [replay(run, lambda _: 1.01) for run in exact], smallest_share=0.005).slower


def test_a_replay_without_change_is_the_run() -> None:
    run = cluster(3)
    assert replay(run, lambda _: 1.0) == run


def test_a_shorter_step_moves_what_waited_for_it_up_to_what_else_that_waited_for() -> None:
    run = run_of(
        step("node", 0, 20, kind="node"),
        step("placement", 0, 4, "node"),
        step("download", 0, 10, "node"),
        step("engine", 11, 19, "node"),
        step("import", 11, 15, "engine", kind="engine_step"),
        end=20,
    )
    without = replay(run, lambda at: 0.0 if at.step.name == "download" else 1.0)
    assert time_to_ready(without) == 14.0  # the engine waited for the placement as well, and begins a second after it
    assert [each.start_ns for each in without.steps if each.name == "engine"] == [5 * 10**9]
    assert time_to_ready(replay(run, lambda at: 0.5 if at.step.name == "import" else 1.0)) == 18.0
