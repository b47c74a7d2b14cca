"""The middleware. It is plain ASGI, so bodies are streamed and requests do not wait for each other."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from starlette.types import ASGIApp, Receive, Scope, Send

from phasebus.bus import Bus, Observer, subscribe_all
from phasebus.initializer.integrations.serving.config import ServingConfig
from phasebus.initializer.integrations.serving.events import PostRequest, PreRequest
from phasebus.initializer.integrations.serving.exchange import Exchange
from phasebus.initializer.integrations.serving.lifespan import run_lifespan
from phasebus.initializer.integrations.serving.request import Request
from phasebus.initializer.integrations.serving.request_reporter import RequestReporter, wants_requests

logger = logging.getLogger("phasebus.serving")

_LAST_FLUSH_SECONDS = 5.0
"""How long flushing the last counts may take, in seconds."""

_FILES = frozenset({"http.response.pathsend", "http.response.zerocopysend"})
"""ASGI extensions with which servers send files by themselves, so that no callback could change the chunks."""


class ServingMiddleware:
    """Publishes phases for every HTTP request of an application.

    ``app.add_middleware(ServingMiddleware, config=ServingConfig(callbacks=[…]))`` for Starlette and FastAPI, or
    ``ServingMiddleware(app, config)`` around any ASGI application.

    A request is one step. Its callbacks are not steps, because reporting a callback costs more than a typical callback. An
    error in a callback fails the request, and the error names the callback. An error in an observer fails no request.

    Args:
        app: The application.
        config: Its callbacks and observers. The observers receive events during the application's lifespan.
    """

    def __init__(self, app: ASGIApp, config: ServingConfig) -> None:
        self._app = app
        self._config = config
        self._events = PreRequest(config=config), PostRequest(config=config)
        callbacks = [each for each in config.callbacks if not isinstance(each, Observer)]
        self._here = _OfThread(config.name, callbacks)
        self._is_observed = wants_requests(_step_bus(config.name, config.callbacks))
        self._has_warned = False
        self._background: set[asyncio.Task[None]] = set()
        for each in config.callbacks:
            if isinstance(each, Observer) and not wants_requests(_step_bus(config.name, [each])):
                logger.warning("the observer %r of %r receives no events: requests are steps", each, config.name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the application's whole lifespan."""
        if scope["type"] != "http":
            is_observed = scope["type"] == "lifespan" and self._is_observed
            await (self._run_lifespan if is_observed else self._app)(scope, receive, send)
            return
        if (extensions := scope.get("extensions")) and not _FILES.isdisjoint(extensions):
            scope["extensions"] = {name: extensions[name] for name in extensions if name not in _FILES}
        exchange = Exchange(self._here.callbacks, self._events, Request(scope, receive), send)
        reporters = self._here.reporters
        if not reporters:
            if self._is_observed and not self._has_warned:
                self._warn()
            await exchange.answer(self._app, receive)
            return
        reporter, began = reporters[-1], time.perf_counter()
        if reporter.acquire_trace(began):
            async with reporter.step(exchange.request) as step:
                try:
                    await exchange.answer(self._app, receive)
                finally:
                    step.attributes["status"] = exchange.status
            return
        try:
            await exchange.answer(self._app, receive)
        except BaseException as error:
            await reporter.count(exchange.request, exchange.status, time.perf_counter() - began, error)
            raise
        await reporter.count(exchange.request, exchange.status, time.perf_counter() - began, None)

    async def _run_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Report to the observers from the application's start-up to its shutdown.

        If the application has no lifespan, its error reaches the server, which decides whether to serve it; its requests
        are reported until the event loop ends.
        """
        refusal, error = None, None
        async with self._reporting():
            try:
                refusal = await run_lifespan(self._app, scope, receive, send)
            except Exception as caught:  # noqa: BLE001  # raised below: the task group would wrap it
                error = caught
        if refusal is not None:
            self._report_in_background()
        if (raised := error or refusal) is not None:
            raise raised

    @asynccontextmanager
    async def _reporting(self) -> AsyncIterator[None]:
        """Report the requests of this thread to the observers, and flush the last counts at the end."""
        async with _step_bus(self._config.name, self._config.callbacks) as steps:
            reporter = RequestReporter(steps, self._config.name, self._config.traced_requests_per_second)
            self._here.reporters.append(reporter)
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(reporter.flush_forever)
                    yield
                    tasks.cancel_scope.cancel()
            finally:
                self._here.reporters.remove(reporter)
                with anyio.move_on_after(_LAST_FLUSH_SECONDS, shield=True):
                    await reporter.flush()

    def _report_in_background(self) -> None:
        """Report requests in a background task, without a lifespan. Does nothing under trio, which has no such tasks."""

        async def report() -> None:
            async with self._reporting():
                await anyio.sleep_forever()

        try:
            task = asyncio.get_running_loop().create_task(report(), name=f"{self._config.name} observers")
        except RuntimeError:
            return
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _warn(self) -> None:
        """Log, once, that no observer receives the requests."""
        self._has_warned = True
        logger.warning(
            "the observers of %r receive no requests: they run during the application's lifespan, in its thread, and the "
            "lifespan has not reached the middleware; put the middleware around the outermost application, and run that "
            "with its lifespan on",
            self._config.name,
        )


class _OfThread(threading.local):
    """The objects of one thread: a bus belongs to one, and a test client serves each request in a new thread.

    Attributes:
        callbacks: The bus of the callbacks.
        reporters: The reporters of the lifespans that run in this thread.
    """

    def __init__(self, name: str, callbacks: Iterable[Any]) -> None:
        self.callbacks = Bus(f"{name} callbacks")
        self.reporters: list[RequestReporter] = []
        subscribe_all(self.callbacks, callbacks)


def _step_bus(name: str, callbacks: Iterable[Any]) -> Bus:
    """Return a bus for the steps, with all callbacks and observers on it."""
    bus = Bus(name)
    subscribe_all(bus, callbacks)
    return bus
