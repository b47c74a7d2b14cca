from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasebus.telemetry.analysis import (
    blame,
    critical_path,
    diff,
    gaps,
    perfetto,
    plot,
    stragglers,
    unnamed_share,
    walk,
)
from phasebus.telemetry.journal import RecordedStep, Run
from tests.support.runs import cluster, run_of, step


@pytest.fixture
def node() -> Run:
    return run_of(
        step("node", 0, 20, kind="node"),
        step("download", 0, 8, "node"),
        step("placement_group", 0, 1, "node"),
        step("engine_process", 1, 6, "node"),
        step("engine_init", 8, 20, "node"),
        step("load", 12, 18, "engine_init", kind="engine_step"),
    )


# where steps lie


def placed(run: Run) -> dict[str, str | None]:
    return {at.step.id: at.outer.step.id if at.outer else None for at in walk(run)}


def test_a_step_lies_inside_its_parent_not_inside_a_longer_sibling(node: Run) -> None:
    assert placed(node)["placement_group"] == "node"


def test_an_engine_step_lies_in_the_shortest_engine_step_that_contains_it() -> None:
    run = run_of(
        step("engine", 0, 20, kind="engine"),
        step("front", 1, 19, "engine", kind="engine_step", process="front_end"),
        step("init", 2, 10, "front", kind="engine_step", process="EngineCore"),
        step("prepare", 12, 18, "front", kind="engine_step", process="EngineCore"),
        step("allocate", 13, 17, "init", kind="engine_step", process="Worker_0"),
        step("start", 3, 9, "engine", kind="engine_step", process="Worker_0"),
    )
    assert placed(run) == {
        "engine": None,
        "front": "engine",
        "init": "front",
        "prepare": "front",
        "allocate": "prepare",
        "start": "init",
    }


def test_concurrent_steps_of_two_workers_are_not_nested() -> None:
    run = run_of(
        step("engine", 0, 20, kind="engine"),
        step("load", 1, 10, "engine", id="0", kind="engine_step", process="Worker_0"),
        step("load", 2, 9, "engine", id="1", kind="engine_step", process="Worker_1"),
    )
    assert placed(run) == {"engine": None, "0": "engine", "1": "engine"}


def test_every_step_belongs_to_the_node_it_lies_in() -> None:
    assert {(at.step.kind, at.node) for at in walk(cluster(2))} == {
        ("cluster", ""),
        ("node", "node-0"),
        ("phase", "node-0"),
        ("node", "node-1"),
        ("phase", "node-1"),
    }


def test_parents_that_go_in_circles_lose_no_step() -> None:
    run = run_of(step("a", 0, 1, "b"), step("b", 2, 3, "a"), step("c", 0, 3))
    assert "c" in placed(run)


# the critical path


def test_the_critical_path_consists_of_the_steps_that_were_waited_for(node: Run) -> None:
    path = critical_path(node)
    assert [(link.step.name, link.seconds, link.gap) for link in path.links] == [
        ("download", 8.0, False),
        ("engine_init", 4.0, True),
        ("load", 6.0, False),
        ("engine_init", 2.0, True),
    ]


def test_a_step_that_waits_is_on_the_path_only_while_nothing_else_runs() -> None:
    run = run_of(
        step("engine", 0, 10, kind="engine"),
        step("init_engine_core", 0, 8, "engine", kind="engine_step"),
        step("wait_for_engine_core", 1, 10, "engine", kind="engine_step"),
    )
    assert [(link.step.name, link.seconds) for link in critical_path(run).links] == [
        ("init_engine_core", 8.0),
        ("wait_for_engine_core", 2.0),
    ]


def test_an_ideal_overlap_saves_all_but_the_longest_part(node: Run) -> None:
    overlap = critical_path(node).overlap
    assert overlap.longest is not None
    assert (overlap.longest.name, overlap.at_best, overlap.saved) == ("engine_init", 12.0, 8.0)


def test_the_critical_path_of_a_cluster_goes_through_its_slowest_node() -> None:
    nodes = {link.node for link in critical_path(cluster(5, slowest=3)).links}
    assert nodes == {"", "node-3"}


def test_a_run_without_steps_has_no_path_no_gaps_and_a_picture() -> None:
    assert critical_path(run_of()).links == ()
    assert gaps(run_of()) == ()
    assert "nothing began" in plot(run_of())


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(-1, 10)), max_size=12))
def test_the_links_of_the_path_are_the_whole_time_to_ready_without_overlap(tree: list[tuple[int, int, int]]) -> None:
    steps: list[RecordedStep] = [step("root", 0, 60, kind="node")]
    for number, (one, other, parent) in enumerate(tree):
        above = str(parent) if 0 <= parent < number else "root"
        steps.append(step(str(number), min(one, other), max(one, other), above))
    links = critical_path(run_of(*steps)).links
    reached = 0
    for link in links:
        assert link.start_ns == reached
        reached = link.end_ns
    assert reached == 60 * 10**9


# gaps, stragglers, diff


def test_gaps_name_the_steps_before_and_after(node: Run) -> None:
    rows = gaps(node)
    assert [(row.step.name, row.after and row.after.name, row.before and row.before.name) for row in rows] == [
        ("engine_init", None, "load"),
        ("engine_init", "load", None),
    ]
    assert [row.seconds for row in rows] == [4.0, 2.0]


def test_unnamed_share_counts_the_time_of_simultaneous_gaps_once() -> None:
    steps = [step("root", 0, 100, kind="node")]
    for worker in ("a", "b"):
        steps += [
            step(worker, 0, 100, "root"),
            step(f"{worker}-1", 0, 40, worker),
            step(f"{worker}-2", 50, 100, worker),
        ]
    assert unnamed_share(run_of(*steps)) == pytest.approx(0.1)
    assert unnamed_share(run_of(*steps[:1])) == 0.0
    assert unnamed_share(run_of()) == 0.0


def test_step_with_its_longest_parts_inside_has_no_gaps() -> None:
    steps = [step("imports", 0, 100, inner_steps="longest"), step("a", 10, 40, "imports"), step("b", 50, 60, "imports")]
    assert unnamed_share(run_of(*steps)) == 0.0
    assert gaps(run_of(*steps)) == ()


def test_a_step_with_nothing_inside_has_no_gap(node: Run) -> None:
    assert "download" not in {row.step.name for row in gaps(node)}


def test_the_slowest_node_is_named_for_each_phase_the_furthest_behind_first() -> None:
    rows = stragglers(cluster(5, slowest=3))
    assert (rows[0].kind, rows[0].node, rows[0].behind, rows[0].nodes) == ("node", "node-3", 4.0, 5)
    assert {row.name: (row.node, row.behind) for row in rows}["engine_init"] == ("node-3", 4.0)


def test_a_single_node_has_no_stragglers(node: Run) -> None:
    assert stragglers(node) == ()


def test_a_diff_lists_slower_steps_first_and_added_and_removed_ones(node: Run) -> None:
    later = run_of(
        step("node", 0, 22, kind="node"),
        step("download", 0, 5, "node"),
        step("engine_init", 5, 22, "node"),
        step("new", 5, 6, "node"),
    )
    rows = diff(node, later)
    assert [(row.name, row.change) for row in rows][:3] == [("engine_init", 5.0), ("", 2.0), ("new", 1.0)]
    by_name = {row.name: row for row in rows}
    assert by_name["new"].before is None
    assert by_name["engine_process"].after is None
    assert by_name["engine_init"].slower(0.1, 0.5)
    assert not by_name["engine_init"].slower(0.5, 0.5)
    assert not by_name["download"].slower(0.0, 0.0)


def test_a_run_does_not_differ_from_itself(node: Run) -> None:
    assert {row.change for row in diff(node, node)} == {0.0}


# pictures and traces


def texts(svg: str) -> list[str]:
    return ["".join(each.itertext()) for each in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_the_picture_names_every_phase_and_how_long_it_took(node: Run) -> None:
    shown = texts(plot(node))
    for expected in ("ready in 20 s", "download", "8 s", "engine init", "12 s", "critical path"):
        assert expected in shown


def test_the_picture_shows_why_a_step_failed() -> None:
    run = run_of(
        step("node", 0, 2, kind="node", outcome="failed", error="<no> & model"),
        step("download", 0, 0.001, "node", outcome="failed", error="<no> & model"),
    )
    shown = texts(plot(run))
    assert "failed after 2 s" in shown
    assert "<no> & model" in shown
    assert "download" in shown


def test_five_hundred_nodes_are_one_row_each_in_a_small_picture() -> None:
    picture = plot(cluster(500))
    assert float(ET.fromstring(picture).attrib["height"]) < 4000
    assert "node-499" in picture
    assert len(picture) < 1_000_000


def test_the_picture_takes_nothing_from_elsewhere(node: Run) -> None:
    assert "http" not in plot(node).replace("http://www.w3.org/2000/svg", "")


def test_secrets_in_a_journal_do_not_reach_the_picture() -> None:
    run = run_of(step("node", 0, 2, kind="node", outcome="failed", error="HF_TOKEN=hunter2secret"))
    assert "hunter2secret" not in plot(run)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(-1, 10)), max_size=12))
def test_on_a_track_of_the_trace_one_slice_contains_the_other_or_they_do_not_meet(
    tree: list[tuple[int, int, int]],
) -> None:
    steps = [step("root", 0, 60, kind="node")]
    for number, (one, other, parent) in enumerate(tree):
        above = str(parent) if 0 <= parent < number else "root"
        steps.append(step(str(number), min(one, other), max(one, other), above))
    slices = [event for event in perfetto(run_of(*steps))["traceEvents"] if event["ph"] == "X"]
    assert len(slices) == len(steps)
    for number, one in enumerate(slices):
        for other in slices[:number]:
            if one["tid"] == other["tid"] and one["dur"] and other["dur"]:
                (a, b), (c, d) = ((each["ts"], each["ts"] + each["dur"]) for each in (one, other))
                assert b <= c or d <= a or (c <= a and b <= d) or (a <= c and d <= b)


def test_the_trace_names_nodes_as_processes() -> None:
    events = perfetto(cluster(2))["traceEvents"]
    assert {event["args"]["name"] for event in events if event["name"] == "process_name"} == {
        "cluster",
        "node-0",
        "node-1",
    }


def test_blame_of_a_cluster_names_the_node() -> None:
    assert blame(cluster(3, slowest=1))[1].node == "node-1"
