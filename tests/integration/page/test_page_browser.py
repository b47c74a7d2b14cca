"""The page in a real browser."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from phasebus.telemetry import LiveStep, Metrics, RunIdentity, Status, Timeline
from phasebus.telemetry.service import Server, build_app
from tests.support.browser import Page, browser
from tests.support.programs import free_port


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def step(number: int, parent: int | None, kind: str, name: str, **attributes: str) -> LiveStep:
    return LiveStep(
        id=f"{number:016x}",
        parent=None if parent is None else f"{parent:016x}",
        node="node-1",
        kind=kind,
        name=name,
        start=time.time() - 5,
        attributes=attributes,
    )


def a_start(nodes: int = 1) -> Timeline:
    timeline = Timeline(RunIdentity.fresh("node-1", {}), "http://traces.example/trace/{trace}")
    if nodes > 1:
        timeline.started(step(1, None, "cluster", "prod"))
    for node in range(1, nodes + 1):
        base = node * 100
        timeline.started(step(base, 1 if nodes > 1 else None, "node", f"node-{node}", model="tiny"))
        timeline.started(step(base + 1, base, "phase", "download"))
        timeline.started(step(base + 2, base + 1, "download", "org/tiny", source="hf"))
    return timeline


class Served:
    def __init__(self, timeline: Timeline, port: int = 0) -> None:
        self.server = Server(build_app(Metrics("1"), Status(), timeline), port=port)
        self.server.start()

    def __enter__(self) -> str:
        return self.server.url

    def __exit__(self, *_: object) -> None:
        self.server.close()


def test_the_page_follows_a_start_live(page: Page) -> None:
    timeline = a_start()
    with Served(timeline) as url:
        page.open(url)
        page.wait_for("org/tiny")
        timeline.progressed(f"{102:016x}", 10e6, 40e6, "By", time.time() - 1)
        timeline.progressed(f"{102:016x}", 20e6, 40e6, "By", time.time())
        page.wait_for("50 %")
        timeline.ended(f"{102:016x}", time.time(), "failed", "no space left on the disk", {})
        page.wait_for("no space left on the disk")
        timeline.close()
        page.wait_for("The process has ended")


def test_who_comes_late_or_reloads_sees_all_of_it(page: Page) -> None:
    with Served(a_start()) as url:
        for _ in range(2):
            page.open(url)
            page.wait_for("org/tiny")


def test_a_server_that_is_started_again_is_found_again(page: Page) -> None:
    port = free_port()
    with Served(a_start(), port) as url:
        page.open(url)
        page.wait_for("org/tiny")
    page.wait_for("The connection is lost")
    again = a_start()
    again.started(step(200, None, "phase", "engine_init"))
    with Served(again, port):
        page.wait_for("engine init")


def test_500_nodes_are_few_elements(page: Page) -> None:
    with Served(a_start(nodes=500)) as url:
        page.open(url)
        page.wait_for("500 nodes")
        assert page.evaluate("document.querySelectorAll('*').length") < 3000


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 900)])
def test_nothing_is_wider_than_the_window(page: Page, width: int, height: int, tmp_path: Path) -> None:
    with Served(a_start()) as url:
        page.resize(width, height)
        page.open(url)
        page.wait_for("org/tiny")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.screenshot(tmp_path / "page.png")
        assert (tmp_path / "page.png").stat().st_size > 10_000


def test_names_are_shown_as_text_and_never_run(page: Page) -> None:
    timeline = a_start()
    timeline.started(step(300, 100, "phase", "<img src=x onerror=document.title='broken'>"))
    with Served(timeline) as url:
        page.open(url)
        page.wait_for("onerror")
        assert page.evaluate("document.title") != "broken"
