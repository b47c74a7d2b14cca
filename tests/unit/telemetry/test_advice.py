from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasebus.telemetry.analysis import Lever, advise, common_levers, replay, shortened, spread, time_to_ready
from phasebus.telemetry.journal import Run
from tests.support.runs import run_of, step


def start(callback: float = 2.0, download: float = 5.0, import_ends: float = 9.0, source: str = "hf") -> Run:
    """Return a start whose callback blocks the rest, and whose download runs beside the import of the engine."""
    end = max(callback + download, import_ends) + 3
    return run_of(
        step("node", 0, end, kind="node"),
        step("wait", 0, callback, "node", kind="callback"),
        step("download", callback, callback + download, "node", kind="download", source=source),
        step("import_engine", callback, import_ends, "node", kind="engine_step"),
        step("load", end - 3, end, "node", kind="engine_step"),
        end=end,
    )


def test_only_what_the_rest_waits_for_is_advised() -> None:
    (advice,) = advise([start()], common_levers)  # the import takes longer than the download beside it
    assert advice.lever.name.startswith("drop the callback wait")
    assert advice.saved == pytest.approx(2.0)
    assert advice.before == 12.0


@pytest.mark.parametrize(("download", "saving"), [(9.0, 2.0), (20.0, 13.0)])
def test_a_saving_ends_where_the_next_step_is_waited_for(download: float, saving: float) -> None:
    found = {each.lever.name: each.saved for each in advise([start(download=download)], common_levers)}
    assert found["have the model on this machine before the start"] == pytest.approx(saving)


def test_model_at_a_path_is_not_advised_to_be_on_the_machine() -> None:
    (advice,) = advise([start(download=20.0, source="file")], common_levers)
    assert advice.lever.name.startswith("drop the callback")


def test_of_several_runs_the_smallest_saving_counts_and_a_lever_of_one_run_is_none() -> None:
    (advice,) = advise([start(callback=3.0), start(callback=1.0), start(callback=2.0)], common_levers)
    assert advice.saved == pytest.approx(1.0)
    other = run_of(step("node", 0, 9, kind="node"), step("b", 0, 9, "node", kind="callback"), end=9.0)
    assert advise([start(), other], common_levers) == []
    assert advise([], common_levers) == []


@pytest.mark.parametrize(("callback", "least"), [(0.04, 0.0), (0.3, 0.0), (2.0, 2.5)])
def test_savings_below_the_differences_between_starts_are_no_advice(callback: float, least: float) -> None:
    assert advise([start(callback=callback)], common_levers, least=least) == []


def test_starts_differ_by_their_deviation_whatever_one_slow_start_took() -> None:
    assert spread([10.0, 11.0]) == 0.0
    for slowest in (13.0, 1000.0):
        assert spread([10.0, 11.0, 12.0, slowest, 9.0]) == pytest.approx(1.48, abs=0.01)


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 5)), min_size=1, max_size=12),
    st.integers(0, 12),
)
def test_a_shorter_step_never_makes_a_start_longer_and_never_saves_more_than_it_took(
    parts: list[tuple[int, int, int]], shorter: int
) -> None:
    steps: list[Any] = [step("0", 0, 100, kind="node")]
    for number, (begin, length, parent) in enumerate(parts, 1):
        steps.append(step(str(number), begin, begin + length, str(min(parent, number - 1)), kind="engine_step"))
    run = run_of(*steps, end=100.0)
    without = replay(run, shortened(lambda each: each.name == str(shorter), 0.0))
    gained = time_to_ready(run) - time_to_ready(without)
    assert 0 <= gained <= next((each.seconds(0) for each in run.steps if each.name == str(shorter)), 0.0) + 1e-9


def test_a_lever_is_a_change_of_steps_by_a_factor() -> None:
    half = Lever(name="import less", how="", factor=shortened(lambda each: each.name == "import_engine", 0.5))
    (advice,) = advise([start()], lambda _: [half])
    assert advice.saved == pytest.approx(2.0)  # down to the end of the download
    assert advice.share == pytest.approx(2.0 / 12.0)
