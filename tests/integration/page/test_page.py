"""The live page in a real browser."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from phasebus.telemetry import Timeline
from phasebus.telemetry.analysis import page_state
from phasebus.telemetry.formatting import format_duration, format_progress, format_quantity, format_title
from phasebus.telemetry.service.page import page_of
from tests.support.runs import run_of, step
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.integration.page.conftest import Service


@pytest.fixture
def node(service: Service) -> str:
    """A node that downloads; what a callback has changed is known."""
    node = service.start("node", "node-1", model="org/llama")
    before = service.start("phase", "pre_initialization", node)
    called = service.start("callback", "pin_to_rack", before, phase="pre_initialization")
    service.end(called, 1, changed="placement_bundles,placement_strategy")
    service.end(before, 1)
    phase = service.start("phase", "download", node, 1)
    download = service.start("download", "org/llama", phase, 1, model="org/llama")
    service.progress(download, 2e9, 10e9, 10)
    service.progress(download, 3e9, 10e9, 12)
    return node


def names(page: Page) -> list[str]:
    return page.locator(".row .label").all_inner_texts()


def test_the_page_shows_phases_steps_progress_and_changed_keys(service: Service, node: str, page: Page) -> None:
    page.goto(service.url)
    expect(page.locator("#status")).to_have_text("Starting")
    expect(page.locator("#subject")).to_have_text("node-1 · llama")
    assert names(page) == [
        "node node-1",
        "pre initialization",
        "callback pin_to_rack",
        "download",
        "download org/llama",
    ]
    expect(page.locator("#running")).to_contain_text("3 GB of 10 GB (30 %), 500 MB/s, 14 s left")
    expect(page.locator("#running")).to_contain_text("download org/llama")
    expect(page.locator("#callbacks .chip")).to_have_text(["placement_bundles", "placement_strategy"])


def test_the_page_shows_changes_without_a_reload(service: Service, node: str, page: Page) -> None:
    page.goto(service.url)
    expect(page.locator("#status")).to_have_text("Starting")
    init = service.start("phase", "engine_init", node, 29)
    expect(page.locator("#running")).to_contain_text("engine init")
    service.end(init, 40)
    service.end(node, 40)
    expect(page.locator("#status")).to_have_text("Ready")
    expect(page.locator("#doing")).to_contain_text("after 40 s")


def test_the_page_formats_numbers_and_titles_as_the_terminal_does(service: Service, node: str, page: Page) -> None:
    page.goto(service.url)
    seconds = [
        0,
        0.0012,
        0.0094,
        0.0096,
        0.31,
        0.9994,
        0.9996,
        1.638,
        9.994,
        59.94,
        59.96,
        119.6,
        185,
        3599.7,
        86_400.4,
    ]
    amounts = [0, 1, 999, 999.6, 1234.5, 1_048_576, 999_949_999, 7.891e14, -5000]
    units = ["By", "1", "s"]
    progress = [(3e9, 1e10, 5e8), (3e9, None, 5e8), (999, 1000, 0), (20, 10, None), (5, 10, 0.3)]
    kinds = [
        ("phase", "a_b"),
        ("engine_step", "load_weights"),
        ("training_workers", "a_b"),
        ("callback", "pin_to_rack"),
        ("ray", "start_node_actor"),
        ("cluster", "cluster"),
    ]
    assert page.evaluate("all => all.map(formatDuration)", seconds) == [format_duration(each) for each in seconds]
    for unit in units:
        shown = page.evaluate("([all, unit]) => all.map(each => formatQuantity(each, unit))", [amounts, unit])
        assert shown == [format_quantity(each, unit) for each in amounts]
    shown = page.evaluate(
        "all => all.map(([done, total, rate]) => formatProgress({ done, total, unit: 'By', rate }))", progress
    )
    assert shown == [format_progress(done, total, "By", rate) for done, total, rate in progress]
    shown = page.evaluate("all => all.map(([kind, name]) => titleOf({ kind, name }))", kinds)
    assert shown == [format_title(kind, name) for kind, name in kinds]


def test_a_failure_is_shown_with_its_reason_as_text_and_never_as_markup(
    service: Service, node: str, page: Page
) -> None:
    reason = "<img src=x onerror=alert(1)> no space left"
    broken = service.start("phase", "placement_group", node, 1)
    service.end(broken, 2, reason)
    service.end(node, 2, reason)
    page.goto(service.url)
    expect(page.locator("#status")).to_have_text("Failed")
    expect(page.locator("#look")).to_have_text("placement group")
    expect(page.locator("#reason")).to_have_text(reason)
    assert page.locator("img").count() == 0


def test_a_step_links_to_its_trace(service: Service, node: str, page: Page) -> None:
    page.goto(service.url)
    trace = service.timeline.identity.trace
    expect(page.locator("#trace")).to_have_attribute("href", f"http://jaeger.test/trace/{trace}?uiFind={node}")


def test_a_trace_url_that_is_a_script_is_no_link(service: Service, node: str, page: Page) -> None:
    service.timeline.trace_url = "javascript:alert('{trace}')"
    page.goto(service.url)
    expect(page.locator("#status")).to_have_text("Starting")
    expect(page.locator("#trace")).to_be_hidden()


def test_it_is_used_by_keyboard(service: Service, node: str, page: Page) -> None:
    page.goto(service.url)
    expect(page.locator(".row")).to_have_count(5)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".row")).to_have_count(1)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("r")
    expect(page.locator(".row.chosen")).to_contain_text("download org/llama")
    page.keyboard.press("Enter")
    expect(page.locator("#details")).to_contain_text("3 GB of 10 GB")
    page.keyboard.press("Escape")
    expect(page.locator("#details")).to_be_hidden()
    page.keyboard.press("/")
    page.keyboard.type("callback")
    expect(page.locator(".row")).to_have_count(3)


def test_a_late_reader_and_a_reload_show_the_same_state(
    service: Service, node: str, page: Page, browser: Browser
) -> None:
    page.goto(service.url)
    expect(page.locator(".row")).to_have_count(5)
    before = names(page)
    page.reload()
    expect(page.locator(".row")).to_have_count(5)
    assert names(page) == before


def test_the_page_reconnects_to_a_restarted_server(service: Service, node: str, page: Page) -> None:
    page.goto(service.url)
    expect(page.locator("#status")).to_have_text("Starting")
    service.close()
    expect(page.locator("#notice")).to_be_visible()
    expect(page.locator(".row")).to_have_count(5)  # as it stood
    from tests.integration.page.conftest import Service as Again

    again = Again(service.server.port)
    try:
        other = again.start("node", "node-2")
        again.start("phase", "engine_init", other)
        expect(page.locator("#notice")).to_be_hidden()
        expect(page.locator("#running")).to_contain_text("engine init")
        assert names(page) == ["node node-2", "engine init"]
    finally:
        again.close()


def test_five_hundred_nodes_are_scrolled_through_with_few_elements(service: Service, page: Page) -> None:
    whole = service.start("cluster", "prod")
    for number in range(500):
        node = service.start("node", f"node-{number:03d}", whole, number / 100)
        for phase in ("pre_initialization", "download", "placement_group", "engine_init"):
            step = service.start("phase", phase, node, number / 100)
            if phase != "engine_init":
                service.end(step, 10)
    page.goto(service.url)
    expect(page.locator("#subject")).to_have_text("500 nodes")
    expect(page.locator("#running")).to_contain_text("engine init · 500 times")
    assert page.locator(".row").count() < 80
    page.keyboard.press("End")
    expect(page.locator(".row.chosen")).to_contain_text("node-499")
    page.locator("#filter").fill("node-123")
    expect(page.locator(".row", has_text="node-123")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_keeps_to_light_or_dark(service: Service, node: str, browser: Browser, scheme: str) -> None:
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, color_scheme="dark" if scheme == "dark" else "light"
    )
    phone = context.new_page()
    phone.goto(service.url)
    expect(phone.locator(".row")).to_have_count(5)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    shade = phone.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (shade == "rgb(14, 17, 22)") == (scheme == "dark")
    context.close()


def test_the_content_security_policy_blocks_other_origins(service: Service) -> None:
    policy = httpx.get(service.url, timeout=60).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]


def test_fifty_readers_receive_everything_while_others_disconnect(service: Service, node: str) -> None:
    def read(_: int) -> str:
        with httpx.stream("GET", f"{service.url}events", timeout=60) as answer:
            received = ""
            for text in answer.iter_text():
                received += text
                if "engine_init" in received:
                    return received
        return received

    with ThreadPoolExecutor(50) as readers:
        results = [readers.submit(read, number) for number in range(50)]
        with httpx.stream("GET", f"{service.url}events", timeout=60) as leaving:
            next(leaving.iter_text())
        service.start("phase", "engine_init", node)
        assert all("engine_init" in each.result() for each in results)
    assert httpx.get(f"{service.url}livez", timeout=60).is_success


def test_a_reconnecting_reader_receives_the_missed_changes_only(service: Service, node: str) -> None:
    timeline: Timeline = service.timeline
    seen = {"Last-Event-ID": f"{timeline.epoch}:{timeline.version}"}
    service.start("phase", "engine_init", node)
    with httpx.stream("GET", f"{service.url}events", headers=seen, timeout=60) as answer:
        received = ""
        for text in answer.iter_text():
            received += text
            if "engine_init" in received:
                break
    assert "event: state" not in received
    assert "pin_to_rack" not in received


def test_closing_ends_the_streams_at_once_even_while_they_are_read(service: Service, node: str) -> None:
    with httpx.stream("GET", f"{service.url}events", timeout=30) as answer, ThreadPoolExecutor(1) as reader:
        results = reader.submit(lambda: "".join(answer.iter_text()))
        wait_until(lambda: service.server.url != "", "it serves")
        service.close()
        assert "event: closed" in results.result(30)


def test_the_page_of_a_finished_run_needs_no_server(page: Page, tmp_path: Path) -> None:
    run = run_of(step("n", 0, 20, kind="node", model="m"), step("download", 0, 8, "n", error="</script>"))
    page.set_content(page_of(page_state(run)))
    expect(page.locator("#status")).to_have_text("Ready")
    expect(page.locator("#doing")).to_contain_text("after 20 s")
    assert names(page) == ["node n", "download"]


def test_fifty_thousand_steps_are_drawn_and_the_page_stays_responsive(service: Service, page: Page) -> None:
    node = service.start("node", "node-1", model="org/llama")
    phase = service.start("phase", "engine_init", node)
    for number in range(24_990):  # most of them below one step, and some running: the worst cases of the tree
        step = service.start(
            "engine_step", f"load_shard_{number}", phase, number / 1000, process=f"Worker_{number % 8}"
        )
        if number % 100:
            service.end(step, number / 1000 + 0.01)
        callback = service.start("callback", "on_shard", step, number / 1000)
        service.end(callback, number / 1000 + 0.001)
    page.goto(service.url)
    expect(page.locator("#footnote")).to_contain_text("49982 steps")
    assert page.locator(".row").count() < 80
    page.keyboard.press("End")
    expect(page.locator(".row.chosen")).to_contain_text("load shard 24989")
    page.locator("#filter").fill("load shard 12345")
    expect(page.locator(".row", has_text="load shard 12345")).to_have_count(1)
    page.locator("#filter").fill("")
    more = service.start("phase", "post_engine_init", node, 29)
    expect(page.locator("#running")).to_contain_text("post engine init")
    # it takes about 15 times what drawing takes; a tree that compared all steps with all others, several hundred times
    tree, rest = page.evaluate(
        """() => [makeTree, update].map(work => {
            const began = performance.now();
            for (let times = 0; times < 5; times++) { tree = work === makeTree ? null : tree; work(); }
            return performance.now() - began;
        })"""
    )
    assert tree < 100 * rest, (tree, rest)
    service.end(more, 30)


def test_steps_that_the_service_has_evicted_are_removed(service: Service, node: str, page: Page) -> None:
    page.goto(service.url)
    expect(page.locator(".row")).to_have_count(5)
    gone = page.evaluate(
        "takeChange({ steps: [], removed: [[...state.steps.keys()].pop()], left_out: 1, now: 1 }); draw()"
    )
    assert gone is None
    expect(page.locator(".row")).to_have_count(4)
    expect(page.locator("#footnote")).to_contain_text("1 more steps began than are kept")
