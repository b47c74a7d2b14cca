from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from phasebus.telemetry import LiveStep, Metrics, RunIdentity, Status, Timeline
from phasebus.telemetry.service import Server, build_app
from tests.support.chromium import chromium

expect.set_options(timeout=60_000)  # milliseconds; the default of 5 s is too short on a busy machine

TRACES = "http://jaeger.test/trace/{trace}?uiFind={span}"


class Service:
    """A service whose timeline a test fills."""

    def __init__(self, port: int = 0) -> None:
        self.timeline = Timeline(RunIdentity.fresh("node-1", {}), TRACES)
        self.server = Server(partial(build_app, Metrics("1"), Status(), self.timeline), port=port)
        self.server.start()
        self.url = f"{self.server.url}/"
        self.began = time.time() - 30
        self._steps = 0

    def start(self, kind: str, name: str, parent: str | None = None, at: float = 0.0, **attributes: Any) -> str:
        self._steps += 1
        step = f"{self._steps:016x}"
        self.timeline.started(
            LiveStep(
                id=step,
                parent=parent,
                node="node-1",
                kind=kind,
                name=name,
                start=self.began + at,
                attributes=attributes,
            )
        )
        return step

    def end(self, step: str, at: float, error: str | None = None, **attributes: Any) -> None:
        self.timeline.ended(step, self.began + at, "failed" if error else "finished", error, attributes)

    def progress(self, step: str, done: float, total: float, at: float) -> None:
        self.timeline.progressed(step, done, total, "By", self.began + at)

    def close(self) -> None:
        self.timeline.close()
        self.server.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for a module: while one runs, playwright keeps an event loop in this thread, and there can be no other."""
    with chromium() as running:
        yield running


@pytest.fixture
def service() -> Iterator[Service]:
    running = Service()
    yield running
    running.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page; an error of its script, or a request to another machine, fails the test."""
    context = browser.new_context(viewport={"width": 1200, "height": 800}, color_scheme="light")
    opened = context.new_page()
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on(
        "request", lambda request: None if "//127.0.0.1:" in request.url else errors.append(f"asked for {request.url}")
    )
    yield opened
    context.close()
    assert errors == []
