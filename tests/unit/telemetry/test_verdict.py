"""The words of the terminal for the state of a start; the page's are compared with them in tests/integration/page."""

from __future__ import annotations

from typing import Any

import pytest

from phasebus.telemetry.verdict import Verdict, describe, describe_remaining, verdict

NOW = 1000.0
USUAL = {"seconds": 10.0, "low": 8.0, "high": 12.0}


def step(id_: str, name: str, ago: float, parent: str | None = "n", **fields: Any) -> dict[str, Any]:
    kind = fields.pop("kind", "phase")
    about = {"id": id_, "parent": parent, "node": "a", "kind": kind, "name": name, "start": NOW - ago}
    return about | {"outcome": "running"} | fields


NODE = step("n", "a", 90, None, kind="node")
FAILED = {"outcome": "failed", "end": NOW - 5, "error": "no space left"}


def judged(*steps: dict[str, Any], stuck: tuple[dict[str, Any], ...] = ()) -> Verdict:
    return verdict({each["id"]: each for each in steps}, NOW, stuck)


def test_a_start_without_steps_is_waiting() -> None:
    assert describe(judged()) == "Waiting for the first step"


def test_a_start_that_waits_in_a_step_names_what_that_waits_for() -> None:
    found = judged(NODE, step("w", "wait_for_model", 20, kind="engine_step", attributes={"process": "front_end"}))
    assert describe(found) == "Starting: it waits for model · front_end, 20 s so far"


def test_a_running_start_names_what_it_waits_for_and_the_time_remaining() -> None:
    remaining = {"seconds": 14.2, "low": 11.0, "high": 21.0, "runs": 5, "basis": "same"}
    found = judged(NODE, step("d", "download", 20, usual={"seconds": 30.0, "low": 25.0, "high": 40.0}))
    expected = "Starting, about 14 s left (11 s to 21 s): it waits for download, 20 s so far, usually 30 s"
    assert describe(found, remaining) == expected
    assert describe_remaining(remaining | {"low": 0.2}) == "about 14 s left (at most 21 s)"
    assert describe_remaining(remaining | {"high": 0.0}) == "usually ready by now"
    assert describe_remaining(None) == ""


def test_of_waiting_workers_and_the_one_they_wait_for_that_one_is_named() -> None:
    workers = [
        step(f"w{rank}", "load_weights" if rank == 3 else "wait_for_peers", 80 if rank == 3 else 40 - rank)
        | {"kind": "engine_step", "attributes": {"process": f"Worker_TP{rank}"}}
        for rank in range(8)
    ]
    core = step("c", "init_executor", 85, kind="engine_step", attributes={"process": "EngineCore"})
    found = judged(NODE, core, *workers)
    assert (found.step or {})["id"] == "w3"


def test_a_step_beyond_its_usual_range_makes_the_start_slower_than_usual() -> None:
    found = judged(NODE, step("e", "engine_init", 50, usual=USUAL))
    assert describe(found) == "Slower than usual: look at engine init, 50 s so far, usually 10 s"
    assert judged(NODE, step("e", "engine_init", 13, usual=USUAL)).state == "starting", (
        "13 s is less than 1.5 times 10 s"
    )
    short = {"seconds": 0.01, "low": 0.01, "high": 0.02}
    assert judged(NODE, step("e", "engine_init", 4.9, usual=short)).state == "starting", "less than 5 s more"


def test_a_step_without_a_usual_duration_is_slow_with_the_step_that_contains_it() -> None:
    phase, called = step("e", "engine_init", 50, usual=USUAL), step("c", "fetch", 49, "e", kind="callback")
    expected = "Slower than usual: look at callback fetch, 49 s so far; engine init usually takes 10 s"
    assert describe(judged(NODE, phase, called)) == expected
    assert judged(NODE | {"usual": USUAL}, step("e", "engine_init", 5)).state == "slow"
    quick = step("c", "fetch", 2, "e", kind="callback", usual={"seconds": 5.0, "low": 4.0, "high": 6.0})
    assert judged(NODE, phase, quick).state == "starting", "what made the phase slow is over"


def test_a_stuck_step_comes_before_a_slow_one() -> None:
    stuck = {"step": "d", "name": "download", "process": "p", "reason": "no byte read for 60 s"}
    found = judged(NODE, step("d", "download", 80), step("e", "engine_init", 50, usual=USUAL), stuck=(stuck,))
    assert describe(found) == "Stuck: look at download, no byte read for 60 s"
    elsewhere = judged(NODE, stuck=(stuck | {"step": "not here"},))
    assert describe(elsewhere) == "Stuck: no byte read for 60 s"


def test_the_first_failure_is_named_and_not_what_was_cancelled_because_of_it() -> None:
    cancelled = step("c", "placement_group", 80, outcome="cancelled", end=NOW - 9)
    found = judged(NODE | FAILED, cancelled, step("d", "download", 80) | FAILED)
    assert describe(found) == "Failed: look at download, no space left"
    assert found.is_over


def test_a_failure_that_the_outer_step_may_get_over_is_no_failure_of_the_start() -> None:
    retried = step("f", "model.safetensors", 50, "d", kind="file") | FAILED
    assert judged(NODE, step("d", "org/m", 60, kind="download"), retried).state == "starting"
    done = {"outcome": "finished", "end": NOW - 1}
    assert judged(NODE | done, step("d", "org/m", 60, kind="download") | done, retried).state == "ready"


def test_failed_nodes_are_counted_and_the_node_is_named() -> None:
    cluster = step("c", "prod", 95, None, kind="cluster", node="")
    lost = step("m", "b", 60, "c", kind="node", node="b", outcome="died", end=NOW - 4, error="its host was lost")
    found = judged(cluster, NODE | {"parent": "c"}, lost)
    assert describe(found, with_node=True) == "1 of 2 nodes failed: look at node b, its host was lost"
    assert not found.is_over


@pytest.mark.parametrize(
    ("outcome", "state", "words"), [("finished", "ready", "Ready"), ("cancelled", "cancelled", "Cancelled")]
)
def test_the_end_of_the_outermost_step_is_the_end_of_the_start(outcome: str, state: str, words: str) -> None:
    found = judged(NODE | {"outcome": outcome, "end": NOW})
    assert (found.state, found.words, found.is_over) == (state, words, True)


def test_a_restart_of_the_engine_comes_before_the_start_that_succeeded() -> None:
    restart = step("r", "vllm", 5, None, kind="engine_restart")
    assert judged(NODE | {"outcome": "finished", "end": NOW - 50}, restart).words == "Restarting"
