"""The middleware: plain ASGI, so that a body passes through as it comes and nothing waits for its end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
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
"""How long the last counts may take to be told, in seconds."""

_FILES = frozenset({"http.response.pathsend", "http.response.zerocopysend"})
"""What servers offer to send files by: no callback could change the chunks."""


class ServingMiddleware:
    """Gives every HTTP request of an application its phases.

    ``app.add_middleware(ServingMiddleware, config=ServingConfig(callbacks=[…]))`` for Starlette and FastAPI, or
    ``ServingMiddleware(app, config)`` around any ASGI application.

    A request is one step, and its callbacks are no steps of their own: reporting them would cost more than most of
    them do. An error of a callback fails the request, with the callback's name on it; an error of an observer never
    does.

    Args:
        app: The application.
        config: Its callbacks and observers. The observers watch while the application's lifespan lasts.
    """

    def __init__(self, app: ASGIApp, config: ServingConfig) -> None:
        self._app = app
        self._config = config
        self._events = PreRequest(config=config), PostRequest(config=config)
        callbacks = [each for each in config.callbacks if not isinstance(each, Observer)]
        self._here = _OfThread(config.name, callbacks)
        self._is_watched = wants_requests(_bus_of_steps(config.name, config.callbacks))
        self._has_warned = False
        for each in config.callbacks:
            if isinstance(each, Observer) and not wants_requests(_bus_of_steps(config.name, [each])):
                logger.warning("the observer %r of %r sees nothing: requests are told as steps", each, config.name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the application's whole lifespan."""
        if scope["type"] != "http":
            alive = scope["type"] == "lifespan" and self._is_watched
            await (self._run_lifespan if alive else self._app)(scope, receive, send)
            return
        if (extensions := scope.get("extensions")) and not _FILES.isdisjoint(extensions):
            scope["extensions"] = {name: extensions[name] for name in extensions if name not in _FILES}
        exchange = Exchange(self._here.callbacks, self._events, Request(scope, receive), send)
        reporters = self._here.reporters
        if not reporters:
            if self._is_watched and not self._has_warned:
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
        """Have the observers watch from the application's start-up to its shutdown."""
        reporters, error = self._here.reporters, None
        async with _bus_of_steps(self._config.name, self._config.callbacks) as steps:
            reporter = RequestReporter(steps, self._config.name, self._config.traced_requests_per_second)
            reporters.append(reporter)
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(reporter.flush_forever)
                    try:
                        await run_lifespan(self._app, scope, receive, send)
                    except Exception as caught:  # noqa: BLE001  # it leaves below, out of the group, as it came
                        error = caught
                    tasks.cancel_scope.cancel()
            finally:
                reporters.remove(reporter)
                with anyio.move_on_after(_LAST_FLUSH_SECONDS, shield=True):
                    await reporter.flush()
        if error is not None:
            raise error

    def _warn(self) -> None:
        """Say, once, that nobody watches."""
        self._has_warned = True
        logger.warning(
            "requests to %r are served, and its observers do not see them: they watch while the application's lifespan "
            "lasts, in its thread, and that has not reached the middleware; put it around the outermost application, and "
            "run that with its lifespan on",
            self._config.name,
        )


class _OfThread(threading.local):
    """What belongs to one thread, as buses do; a test client serves each request in another.

    Attributes:
        callbacks: The bus of the callbacks.
        reporters: Who tells the observers, of each lifespan that lasts in this thread.
    """

    def __init__(self, name: str, callbacks: Iterable[Any]) -> None:
        self.callbacks = Bus(f"{name} callbacks")
        self.reporters: list[RequestReporter] = []
        subscribe_all(self.callbacks, callbacks)


def _bus_of_steps(name: str, callbacks: Iterable[Any]) -> Bus:
    """Return a bus for the steps, with all who want to be told of them."""
    bus = Bus(name)
    subscribe_all(bus, callbacks)
    return bus
