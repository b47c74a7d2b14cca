from __future__ import annotations

from phasebus.bus import StepFailed, StepFinished, StepStarted
from phasebus.observers import StatusObserver
from phasebus.telemetry import Metrics, Status

NODE, PHASE = "a" * 16, "b" * 16


def watched() -> tuple[Status, Metrics, StatusObserver]:
    status, metrics = Status(), Metrics("1")
    return status, metrics, StatusObserver(status, metrics)


def test_the_whole_is_ready_when_its_outermost_step_has_finished_and_not_before() -> None:
    status, metrics, observer = watched()
    observer.observe(StepStarted(step=NODE, kind="node", name="n"))
    observer.observe(StepStarted(step=PHASE, parent=NODE, kind="phase", name="download"))
    observer.observe(StepFinished(step=PHASE, parent=NODE, kind="phase", name="download", seconds=1.0))
    assert not status.ready
    observer.observe(StepFinished(step=NODE, kind="node", name="n", seconds=1.0))
    assert status.ready
    assert metrics.registry.get_sample_value("phasebus_ready") == 1


def test_a_failure_of_the_outermost_step_settles_it_with_the_reason() -> None:
    status, metrics, observer = watched()
    observer.observe(StepStarted(step=NODE, kind="node", name="n"))
    failed = StepFailed(step=NODE, kind="node", name="n", seconds=1.0, outcome="failed", error=ValueError("no model"))
    observer.observe(failed)
    assert status.describe()["status"] == "failed"
    assert status.describe()["error"] == "no model"
    assert metrics.registry.get_sample_value("phasebus_ready") == 0


def test_start_that_stops_is_not_ready_also_if_it_settles_later() -> None:
    status = Status()
    status.settle()
    status.stop()
    assert (status.ready, status.describe()["status"]) == (False, "stopping")
    status.settle()
    assert (status.ready, status.describe()["status"]) == (False, "stopping")
    status.settle("the engine has died")
    assert status.describe()["status"] == "failed"
