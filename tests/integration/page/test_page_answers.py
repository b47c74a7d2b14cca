"""What the page answers: what is happening, whether it is normal, and what to do."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import Page, expect

from phasebus.telemetry.verdict import verdict

if TYPE_CHECKING:
    from tests.integration.page.conftest import Service

STUCK = {
    "step": "",
    "name": "load_weights",
    "process": "Worker_TP3",
    "pid": 4121,
    "running_seconds": 900,
    "usual_seconds": 34,
    "reason": "no byte read for <b>15 min</b>",
    "stacks": ["Thread 1\n  File load.py, line 3"],
    "log": ["nfs: server not responding"],
    "sockets": [],
    "cpu_seconds": 0.02,
    "read_bytes": 0,
}


@pytest.fixture
def workers(service: Service) -> dict[str, str]:
    """A node whose eight workers load weights; seven of them wait for the one that began first."""
    node = service.start("node", "node-1", at=-900, model="org/llama")
    phase = service.start("phase", "engine_init", node, at=-900)
    core = service.start("engine_step", "init_executor", phase, at=-890, process="EngineCore")
    culprit = service.start("engine_step", "load_weights", phase, at=-880, process="Worker_TP3")
    for number in range(8):
        if number != 3:
            service.start("engine_step", "wait_for_peers", phase, at=-840 + number, process=f"Worker_TP{number}")
    return {"node": node, "phase": phase, "core": core, "culprit": culprit}


def test_the_step_that_the_others_wait_for_is_named_before_it_is_stuck(
    service: Service, workers: dict[str, str], page: Page
) -> None:
    page.goto(service.url)
    expect(page.locator("#status")).to_have_text("Starting")
    expect(page.locator("#look")).to_have_text("load weights · Worker_TP3")
    expect(page.locator("#running .line").first).to_contain_text("load weights")


def test_a_stuck_step_is_shown_with_its_evidence_as_text(service: Service, workers: dict[str, str], page: Page) -> None:
    service.timeline.set_usual(workers["culprit"], {"seconds": 34.0, "low": 30.0, "high": 40.0})
    page.goto(service.url)
    service.timeline.expect({"seconds": 9.0, "low": 0.0, "high": 20.0, "runs": 1, "basis": "similar"})
    expect(page.locator("#status")).to_have_text("Slower than usual")
    expect(page.locator("#left")).to_have_text(re.compile(r"No: [23]\d times the usual"))
    expect(page.locator("#normal")).to_contain_text("From 1 run of similar configurations")
    service.timeline.set_stuck([{**STUCK, "step": workers["culprit"]}])
    expect(page.locator("#status")).to_have_text("Stuck")
    expect(page.locator("#left")).to_contain_text("times the usual")
    expect(page.locator("#reason")).to_have_text(str(STUCK["reason"]))
    expect(page.locator("#states .stuck")).to_have_text("Stuck 1")
    expect(page.locator(".row.chosen .label")).to_have_text("! load weights · Worker_TP3")
    page.locator("#look").click()
    expect(page.locator("#details .why")).to_have_text(str(STUCK["reason"]))
    expect(page.locator("#details pre").first).to_have_text("nfs: server not responding")
    expect(page.locator("#details")).to_contain_text("Worker_TP3 (pid 4121)")
    assert page.locator("#details summary").all_inner_texts() == [
        "Last lines of its log (1)",
        "Stacks of its threads (1)",
    ]


def test_the_time_remaining_is_a_progress_bar_with_a_range(
    service: Service, workers: dict[str, str], page: Page
) -> None:
    following = [{"kind": "engine_step", "name": "warm_up", "process": "Worker", "seconds": 12.3}]
    remaining = {"seconds": 310.0, "low": 200.0, "high": 600.0, "runs": 12, "basis": "same", "following": following}
    service.timeline.expect(remaining)
    page.goto(service.url)
    expect(page.locator("#following")).to_have_text("Then usually: warm up (12.3 s)")
    expect(page.locator("#left")).to_contain_text("About 5 min")
    expect(page.locator("#normal")).to_contain_text("From 12 runs of this configuration")
    bar = page.get_by_role("progressbar", name="The whole start")
    assert 70 <= int(bar.get_attribute("aria-valuenow") or 0) <= 80, "930 s of 1240 s"
    service.timeline.expect(None)
    expect(page.locator("#left")).to_have_text("No usual time known")
    expect(page.locator("#following")).to_be_empty()
    expect(bar).to_be_hidden()


def test_the_one_failed_node_of_500_is_visible_without_scrolling(service: Service, page: Page) -> None:
    whole = service.start("cluster", "prod")
    for number in range(500):
        node = service.start("node", f"node-{number:03d}", whole, number / 100)
        phase = service.start("phase", "engine_init", node, number / 100)
        if number == 317:
            service.end(phase, 20, "out of memory")
            service.end(node, 20, "out of memory")
    page.goto(service.url)
    expect(page.locator("#status")).to_have_text("1 of 500 nodes failed")
    expect(page.locator("#look")).to_have_text("engine init on node-317")
    for shown in (page.locator("#look"), page.locator("#map .failed"), page.locator(".row.failed").first):
        expect(shown).to_be_in_viewport()
    expect(page.locator(".row").nth(1)).to_have_class(re.compile("failed"))
    expect(page.locator(".row").nth(1)).to_have_attribute("aria-expanded", "true")
    expect(page.locator("#states .failed")).to_have_text("Failed 1")
    page.locator("#states .running").click()
    expect(page.locator(".row.failed")).to_have_count(0)
    page.locator("#map .failed").click()
    expect(page.locator(".row.chosen")).to_contain_text("node-317")
    expect(page.locator("#details")).to_contain_text("out of memory")
    page.locator("#map .failed").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.title") == "node-318: running"


def test_short_steps_are_seen_by_zoom_and_on_the_logarithmic_scale(service: Service, page: Page) -> None:
    node = service.start("node", "node-1", at=0)
    short, long = service.start("phase", "download", node, 20), service.start("phase", "engine_init", node, 21)
    service.end(short, 20.02)
    service.end(long, 29)
    service.end(node, 30)
    page.goto(service.url)
    bar = page.locator(".row", has_text="download").locator(".bar")
    expect(bar).to_be_visible()

    def width() -> float:
        box = bar.bounding_box()
        return box["width"] if box else 0.0

    assert width() < 5
    page.locator("#log").click()
    expect(page.locator("#log")).to_have_attribute("aria-pressed", "true")
    assert width() > 100
    page.locator("#linear").click()
    page.locator(".row .label", has_text="download").click()
    page.keyboard.press("z")
    assert width() > 300
    expect(page.locator("#fit")).to_be_enabled()
    page.keyboard.press("0")
    assert width() < 5
    page.keyboard.press("+")
    page.keyboard.press("Shift+ArrowRight")
    expect(page.locator("#axis span").first).to_have_text(re.compile(r"[1-9]\d* s"))


def test_two_fingers_zoom_and_one_finger_moves_what_is_shown(service: Service, page: Page) -> None:
    node = service.start("node", "node-1")
    service.start("phase", "download", node, 1)
    page.goto(service.url)
    lane = page.locator(".row").last.locator(".lane").bounding_box()
    assert lane is not None
    touchscreen, y = page.context.new_cdp_session(page), lane["y"] + lane["height"] / 2

    def touch(kind: str, *shares: float) -> None:
        points = [{"x": lane["x"] + share * lane["width"], "y": y, "id": number} for number, share in enumerate(shares)]
        touchscreen.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def shown() -> list[float]:
        return list(
            page.evaluate(
                "[(view.from ?? bounds().start) - bounds().start, view.to ?? bounds().end, view.from === null]"
            )
        )

    assert shown()[2]
    touch("touchStart", 0.45, 0.55)
    touch("touchMove", 0.3, 0.7)
    touch("touchEnd")
    begin, _, whole = shown()
    assert not whole
    assert begin > 5  # of 30 s and more
    touch("touchStart", 0.3)
    touch("touchMove", 0.5)
    touch("touchEnd")
    assert shown()[0] < begin


def test_a_callback_without_effect_is_shown_on_request(service: Service, page: Page) -> None:
    node = service.start("node", "node-1")
    phase = service.start("phase", "pre_download", node)
    for name, seconds, changed in (("changes", 0.001, "mode"), ("takes_time", 2.0, ""), ("looks", 0.001, "")):
        called = service.start("callback", name, phase, phase="pre_download")
        service.end(called, seconds, changed=changed)
    page.goto(service.url)
    expect(page.locator(".row .label", has_text="callback")).to_have_text(["callback takes_time", "callback changes"])
    expect(page.locator("#callbacks .line")).to_have_count(2)
    page.get_by_role("button", name="Show 1 callback without effect").click()
    expect(page.locator(".row .label", has_text="callback looks")).to_be_visible()


def test_the_page_offers_the_trace_for_perfetto_and_the_journal(
    service: Service, workers: dict[str, str], page: Page, tmp_path: Path
) -> None:
    service.timeline.journal = tmp_path / "run.jsonl"
    service.timeline.journal.write_text('{"event": "JournalOpened"}\n')
    page.goto(service.url)
    with page.expect_download() as downloading:
        page.get_by_role("link", name="Perfetto").click()
    trace = json.loads(Path(downloading.value.path()).read_text())
    assert "load weights" in json.dumps(trace).replace("_", " ")
    assert downloading.value.suggested_filename == f"{service.timeline.identity.run}.perfetto.json"
    with page.expect_download() as downloading:
        page.get_by_role("link", name="Journal").click()
    assert Path(downloading.value.path()).read_text() == '{"event": "JournalOpened"}\n'


def test_a_page_without_steps_explains_itself(service: Service, page: Page) -> None:
    page.goto(service.url)
    expect(page.locator("#status")).to_have_text("Waiting for the first step")
    expect(page.locator("#empty")).to_contain_text("no reload is needed")
    service.start("node", "node-1")
    expect(page.locator("#empty")).to_be_hidden()
    page.locator("#filter").fill("nothing like it")
    expect(page.locator("#no-match")).to_contain_text("No step matches “nothing like it”.")
    page.get_by_role("button", name="Show all steps").click()
    expect(page.locator(".row")).to_have_count(1)


def test_whatever_can_be_clicked_is_a_control_with_a_name_and_changes_are_announced(
    service: Service, workers: dict[str, str], page: Page
) -> None:
    page.add_init_script(
        """const listen = EventTarget.prototype.addEventListener; window.listening = [];
        EventTarget.prototype.addEventListener = function (type, ...rest) {
            if (type === "click" && this instanceof Element) listening.push(this.id);
            return listen.call(this, type, ...rest);
        };"""
    )
    service.progress(workers["culprit"], 3e9, 10e9, 1)
    page.goto(service.url)
    expect(page.locator("#look")).to_be_visible()
    assert set(page.evaluate("listening")) <= {"rows", "map"}, "containers of rows and of buttons"
    faults = page.evaluate(
        """() => [...document.querySelectorAll("*")].filter(each => each.onclick && !each.matches("button, a")
            || each.matches("button, a, input, select") && each.checkVisibility()
               && !(each.getAttribute("aria-label") ?? each.ariaLabel ?? each.textContent).trim()
            || each.matches("[role=progressbar]") && each.checkVisibility()
               && !(each.hasAttribute("aria-valuenow") && each.hasAttribute("aria-label"))).map(each => each.outerHTML)"""
    )
    assert faults == []
    expect(page.locator("#announcement")).to_contain_text("Starting")
    service.end(workers["phase"], 20, "the disk is full")
    expect(page.locator("#announcement")).to_contain_text("Failing")


def state_of(*steps: dict[str, Any], stuck: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    now = time.time()
    filled = [
        {"parent": None, "node": "n", "kind": "phase", "outcome": "running", "attributes": {}}
        | {**each, "start": now + each["start"]}
        | ({"end": now + each["end"]} if "end" in each else {})
        for each in steps
    ]
    about = {"run": "r", "node": "n", "trace": "t", "phasebus": "0", "now": now, "left_out": 0}
    return about | {"steps": filled, "stuck": stuck or []}


def some(id_: str, name: str, start: float, parent: str | None = None, **more: Any) -> dict[str, Any]:
    return {"id": id_, "name": name, "start": start, "parent": parent} | more


NODE = some("n", "n", -90, kind="node")
FAILED = {"outcome": "failed", "end": -5, "error": "no space"}
USUAL = {"usual": {"seconds": 10.0, "low": 8.0, "high": 12.0}}
STATES = {
    "waiting": state_of(),
    "starting": state_of(NODE, some("d", "download", -80, "n"), some("e", "engine_init", -50, "n")),
    "slow": state_of(NODE, some("d", "download", -80, "n"), some("e", "engine_init", -50, "n", **USUAL)),
    "slow inside": state_of(
        NODE, some("e", "engine_init", -50, "n", **USUAL), some("c", "c", -40, "e", kind="callback")
    ),
    "stuck": state_of(NODE, some("d", "download", -80, "n"), stuck=[{"step": "d", "reason": "silent"}]),
    "failing": state_of(NODE, some("d", "download", -80, "n", **FAILED)),
    "retried": state_of(
        NODE, some("d", "d", -80, "n", kind="download"), some("f", "f", -70, "d", kind="file", **FAILED)
    ),
    "failed": state_of(
        NODE | FAILED, some("c", "a", -80, "n", outcome="cancelled", end=-9), some("d", "download", -80, "n", **FAILED)
    ),
    "cancelled": state_of(NODE | {"outcome": "cancelled", "end": -3}),
    "ready": state_of(NODE | {"outcome": "finished", "end": -3}),
    "restarting": state_of(NODE | {"outcome": "finished", "end": -30}, some("r", "vllm", -9, kind="engine_restart")),
    "peers": state_of(
        NODE,
        some("c", "init_executor", -80, "n", kind="engine_step", attributes={"process": "EngineCore"}),
        some("w3", "load", -70, "n", kind="engine_step", attributes={"process": "Worker_TP3"}),
        some("w1", "wait", -20, "n", kind="engine_step", attributes={"process": "Worker_TP1"}),
    ),
    "nodes": state_of(
        some("c", "prod", -95, kind="cluster", node=""),
        NODE | {"parent": "c"},
        some("m", "m", -60, "c", kind="node", node="m", outcome="died", end=-4, error="lost"),
    ),
}


def test_the_page_comes_to_the_same_verdict_as_the_terminal(service: Service, page: Page) -> None:
    page.goto(service.url)
    for name, about in STATES.items():
        shown = page.evaluate(
            "about => { source.close(); state.live = true; takeState(about); const it = verdict(); return [it.state, it.words, it.step?.id ?? null]; }",
            about,
        )
        wanted = verdict({each["id"]: each for each in about["steps"]}, about["now"], about["stuck"])
        assert shown == [wanted.state, wanted.words, wanted.step and wanted.step["id"]], name
