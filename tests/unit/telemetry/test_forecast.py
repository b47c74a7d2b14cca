from __future__ import annotations

import math
from dataclasses import replace
from random import Random
from statistics import median
from typing import Any

import pytest

from phasebus.bus import AttributeValue, StepFinished, StepStarted
from phasebus.telemetry.analysis.forecast import (
    Forecast,
    PastRun,
    Progress,
    StepKey,
    following,
    past_run,
    usual_durations,
    usual_order,
)
from phasebus.telemetry.history import EarlierStarts
from phasebus.telemetry.history.live import LiveForecast
from tests.support.runs import cluster, run_of, step
from tests.support.simulated_starts import Shape


def start(download: float = 10.0, engine: float = 20.0, name: str = "vm") -> PastRun:
    """Return a start that downloads beside the first 5 s of the engine's and then needs `engine` seconds more."""
    ready = max(download, 5.0) + engine
    found = past_run(
        run_of(
            step(name, 0, ready, kind="node"),
            step("download", 0, download, name),
            step("import_engine", 0, 5, name, kind="engine_step", process="front_end"),
            step("engine_init", max(download, 5.0), ready, name),
            step(
                "load_weights", max(download, 5.0), ready - engine / 2, "engine_init", kind="engine_step", process="W"
            ),
            step("warm_up", ready - engine / 2, ready, "engine_init", kind="engine_step", process="W"),
            end=ready,
        )
    )
    assert found is not None
    return found


def remaining(history: list[PastRun], present: PastRun, elapsed: float) -> float:
    return Forecast(history).remaining(present.progress_at(elapsed), elapsed).seconds


def key(kind: str, name: str, process: str = "") -> StepKey:
    return StepKey("", kind, name, process)


@pytest.mark.parametrize("elapsed", [0.0, 3.0, 7.0, 12.0, 25.0, 29.9])
def test_a_start_like_the_earlier_ones_has_their_rest_left(elapsed: float) -> None:
    for number in (1, 2, 5):
        assert remaining([start()] * number, start(), elapsed) == pytest.approx(30 - elapsed, abs=0.1)


def test_a_machine_that_is_slower_so_far_is_expected_to_stay_slower() -> None:
    slow = start(download=20, engine=40)
    history = [start(download=10 * factor, engine=20 * factor) for factor in (1.0, 1.6, 0.7, 1.2)]
    assert remaining(history, slow, 20.5) > remaining(history, start(), 10.5) * 1.5


@pytest.mark.parametrize("busy", [[1.0, 1.0, 1.0], [1.0, 2.0, 4.0]])
def test_a_start_on_a_busier_machine_is_expected_to_take_longer(busy: list[float]) -> None:
    history = [replace(start(download=10 * each**0.7, engine=20 * each**0.7), busyness=each) for each in busy]
    forecast = Forecast(history)
    quiet, now_busy = (forecast.remaining(Progress(busyness=each), 0.0).seconds for each in (1.0, 4.0))
    assert quiet == pytest.approx(30, rel=0.3)
    assert now_busy > 1.25 * quiet


def test_a_slow_step_beside_the_chain_adds_what_is_left_of_it() -> None:
    history = [start(download=4.0)] * 3  # the import takes longer
    present = start(download=60.0)
    progress = present.progress_at(20.0)
    progress.left[key("phase", "download")] = 40.0  # by its own progress
    assert Forecast(history).remaining(progress, 20.0).seconds == pytest.approx(60, rel=0.5)
    assert remaining(history, present, 20.0) < 45


def test_a_start_that_hangs_keeps_a_wide_range_and_no_negative_time() -> None:
    forecast = Forecast([start()] * 3)
    progress = start().progress_at(12.0)
    late = forecast.remaining(progress, 300.0)
    assert late.low >= 0
    assert late.seconds > 0
    assert late.high > 200


IMPORTING = StepKey("", "engine_step", "start_process", "front_end")


def importing_start(slower: float = 1.0, cpu_seconds: float = 10.0) -> PastRun:
    """Return a start whose process imports for 40 s, and needs 10 s more; `slower` is a factor of all durations."""
    imports: dict[str, Any] = {"kind": "engine_step", "process": "front_end", "cpu_seconds": cpu_seconds}
    found = past_run(
        run_of(
            step("vm", 0, 50 * slower, kind="node"),
            step("start_process", 0.1, 40 * slower, "vm", **imports),
            step("import_engine", 0.3, 40 * slower, "start_process", **imports),
            step("load_weights", 40 * slower, 50 * slower, "vm", kind="engine_step", process="Worker"),
            end=50 * slower,
        )
    )
    assert found is not None
    return found


def test_the_cpu_time_of_a_running_step_shows_how_far_it_is_on_a_slower_machine() -> None:
    history = [importing_start(factor) for factor in (1.0, 1.6, 0.7, 1.2)]
    for slower in (0.8, 3.0):
        present = importing_start(slower, cpu_seconds=10.5)
        assert remaining(history, present, 20 * slower) == pytest.approx(30 * slower, rel=0.15)


def test_a_step_that_used_more_cpu_time_than_before_has_nothing_left_but_what_follows() -> None:
    progress = Progress()
    progress.begin(IMPORTING, 0.1)
    progress.cpu[IMPORTING] = 25.0
    assert Forecast([importing_start()] * 3).remaining(progress, 40.0).seconds == pytest.approx(10, abs=0.5)


def test_a_step_that_is_reported_only_at_its_end_is_no_milestone_before() -> None:
    progress = Progress()
    progress.begin(IMPORTING, 0.1)
    assert Forecast([importing_start()] * 3).remaining(progress, 20.0).seconds == pytest.approx(30, abs=0.5)


def test_a_faster_import_by_its_cpu_time_is_not_expected_to_take_as_long_as_before() -> None:
    imports: dict[str, Any] = {"kind": "engine_step", "process": "front_end", "cpu_seconds": 10.0}
    past = past_run(
        run_of(
            step("vm", 0, 50, kind="node"),
            step("import_engine", 10, 50, "vm", cpu_seconds_before=2.0, **imports),
            end=50,
        )
    )
    assert past is not None
    progress = past.progress_at(20.0)
    progress.cpu[key("engine_step", "import_engine", "front_end")] = 4.0  # half of the work, in a quarter of the time
    assert Forecast([past] * 3).remaining(progress, 20.0).seconds == pytest.approx(10, abs=1)
    progress.cpu[key("engine_step", "import_engine", "front_end")] = 0.0  # it waits for a process that imports for it
    assert Forecast([past] * 3).remaining(progress, 20.0).seconds > 0


def test_a_live_forecast_counts_no_cpu_time_from_before_the_step() -> None:
    live = LiveForecast(StepStarted(step="a", kind="node", name="vm", time_ns=0), {7: 5.0}.get)
    live.compare_with(EarlierStarts(runs=[importing_start()] * 3, basis="same"))
    attributes: dict[str, AttributeValue] = {"process": "front_end", "pid": 7, "cpu_seconds_before": 5.0}
    live.observe(StepStarted(step="b", kind="engine_step", name="start_process", attributes=attributes, time_ns=10**8))
    found = live.remaining(10**9)
    assert found is not None
    assert found.seconds == pytest.approx(49, abs=2)


def test_a_live_forecast_reads_the_cpu_time_of_the_process_of_a_step() -> None:
    live = LiveForecast(StepStarted(step="a", kind="node", name="vm", time_ns=0), {7: 5.0}.get)
    live.compare_with(EarlierStarts(runs=[importing_start()] * 3, basis="same"))
    attributes: dict[str, AttributeValue] = {"process": "front_end", "pid": 7}
    begun = StepStarted(step="b", kind="engine_step", name="start_process", attributes=attributes, time_ns=10**8)
    live.observe(begun)
    found = live.remaining(40 * 10**9)  # half of the imports, in twice the time
    assert found is not None
    assert 40 < found.seconds < 65
    live.observe(StepFinished(step="b", kind="engine_step", name="start_process", seconds=40, time_ns=41 * 10**9))
    found = live.remaining(41 * 10**9)
    assert found is not None
    assert found.seconds < 15


def test_unknown_steps_and_missing_milestones_do_not_matter() -> None:
    forecast = Forecast([start()] * 3)
    progress = start().progress_at(12.0)
    progress.begin(key("engine_step", "new_step"), 11.0)
    del progress.reached[next(iter(progress.reached))]
    assert forecast.remaining(progress, 12.0).seconds == pytest.approx(18, abs=1)
    assert forecast.remaining(Progress(), 0.0).seconds == pytest.approx(30)


def test_the_host_of_a_start_does_not_matter() -> None:
    assert remaining([start(name="pod-a")], start(name="pod-b"), 12.0) == pytest.approx(18, abs=0.1)


def test_an_earlier_start_with_other_steps_counts_less() -> None:
    compiled = run_of(
        step("vm", 0, 90, kind="node"),
        step("compile_graph", 0, 60, "vm", kind="engine_step"),
        step("load_weights", 60, 90, "vm", kind="engine_step", process="W"),
        end=90,
    )
    past = past_run(compiled)
    assert past is not None
    assert remaining([past, start(), start()], start(), 21.0) == pytest.approx(9, abs=1)


def test_only_starts_that_became_ready_are_used() -> None:
    assert past_run(run_of(step("vm", 0, 10, kind="node", outcome="failed"))) is None
    assert past_run(run_of(step("vm", 0, None, kind="node"))) is None
    assert past_run(run_of()) is None


def test_the_nodes_of_a_cluster_have_steps_of_their_own() -> None:
    past = past_run(cluster(3, slowest=1))
    assert past is not None
    assert past.spans[StepKey("node-1", "phase", "engine_init", "")] == (2.5, 9.5)
    assert remaining([past] * 2, past, 6.0) == pytest.approx(4.0, abs=0.1)


def test_usual_durations_are_medians_with_a_range() -> None:
    usual = usual_durations([start(engine=seconds) for seconds in (18, 20, 22)])[key("phase", "engine_init")]
    assert (usual.seconds, usual.runs) == (20.0, 3)
    assert usual.low < 18
    assert usual.high > 22
    many = usual_durations([start(engine=20 + number) for number in range(10)])[key("phase", "engine_init")]
    assert 20 <= many.low < many.seconds < many.high <= 29


def test_the_steps_that_follow_are_notable_contain_no_others_and_have_their_order() -> None:
    history = [start()] * 3
    order = usual_order(history, usual_durations(history))
    assert [step.name for step in order] == ["import_engine", "download", "load_weights", "warm_up"]
    assert [step.name for step in following(order, start().progress_at(7.0))] == ["load_weights", "warm_up"]
    assert following(order, Progress()) == order
    imports = [importing_start()] * 3
    assert [step.name for step in usual_order(imports, usual_durations(imports))] == ["start_process", "load_weights"]


def test_a_step_that_few_starts_had_has_no_usual_duration() -> None:
    rare = past_run(run_of(step("vm", 0, 9, kind="node"), step("x", 1, 2, "vm"), end=9))
    assert rare is not None
    assert key("phase", "x") not in usual_durations([start(), start(), rare])


def test_errors_and_ranges_of_simulated_starts_keep_their_bounds() -> None:
    chance = Random(1)
    errors: dict[float, list[float]] = {0.0: [], 0.5: []}
    held: list[bool] = []
    for _ in range(40):
        shape = Shape.drawn(chance)
        present, *history = (shape.start(chance) for _ in range(6))
        forecast = Forecast(history)
        for share, found in errors.items():
            elapsed = share * present.seconds
            expected = forecast.remaining(present.progress_at(elapsed), elapsed)
            left = present.seconds - elapsed
            assert 0 <= expected.low <= expected.seconds <= expected.high
            found.append(abs(expected.seconds - left) / present.seconds)
            held.append(expected.low <= left <= expected.high)
    assert median(errors[0.0]) < 0.1
    assert median(errors[0.5]) < 0.05
    assert 0.65 < sum(held) / len(held) < 0.92


def test_a_forecast_is_finite_for_odd_histories() -> None:
    tiny = past_run(run_of(step("vm", 0, 1e-6, kind="node"), end=1))
    assert tiny is not None
    for history in ([tiny], [tiny, start()], [start(), tiny, tiny]):
        for elapsed in (0.0, 1e-9, 1.0, 1e9):
            found = Forecast(history).remaining(Progress(), elapsed)
            assert all(map(math.isfinite, (found.seconds, found.low, found.high)))
