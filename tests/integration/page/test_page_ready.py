"""The page of a start that is ready: where its time went."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.integration.page.conftest import Service


@pytest.fixture
def waiting(service: Service) -> Service:
    """A start whose front end waits for 26 s; for 24 of them, other processes work."""
    node = service.start("node", "node-1")
    phase = service.start("phase", "engine_init", node)
    for name, process, begin, end in (
        ("wait_for_engine_core", "front_end", 2, 28),
        ("import_engine", "EngineCore", 1, 20),
        ("load_weights", "Worker", 22, 28.5),
    ):
        service.end(service.start("engine_step", name, phase, at=begin, process=process), end)
    service.end(phase, 29)
    service.end(node, 30)
    return service


def test_own_times_of_steps_sum_up_and_a_wait_has_only_what_no_other_step_has(waiting: Service, page: Page) -> None:
    page.goto(waiting.url)
    expect(page.locator("#status")).to_have_text("Ready")
    expect(page.locator("#look")).to_have_text("import engine · EngineCore")
    expect(page.locator("#reason")).to_have_text("19 s, 63 % of the start")
    expect(page.locator("#running .line .time")).to_have_text(["19 s", "6.5 s", "2 s", "1.5 s", "1 s"])
    expect(page.locator("#running .line").nth(2)).to_contain_text("wait for engine core · front_end")


def test_process_of_a_step_can_be_read_on_a_phone(waiting: Service, browser: Browser) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844})
    phone = context.new_page()
    phone.goto(waiting.url)
    label = phone.locator(".row .label", has_text="import engine")
    expect(label).to_be_visible()
    assert label.evaluate("each => each.scrollHeight <= each.clientHeight && each.scrollWidth <= each.clientWidth")
    context.close()
