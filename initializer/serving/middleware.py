"""The middleware: plain ASGI, so that a body passes through as it comes and nothing waits for its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from phasebus.bus import Bus, Context, Observer, PhasebusError, subscribe_all
from phasebus.initializer.serving.config import ServingConfig
from phasebus.initializer.serving.events import ANSWER, REQUEST, RESPONSE, PostRequest, PreRequest
from phasebus.initializer.serving.request import Request
from phasebus.initializer.serving.response import ResponseStart
from phasebus.initializer.serving.telling import Telling

_SERVER_ERROR = 500
"""What servers answer for an application that raises before it has begun to answer."""


class ServingError(PhasebusError, RuntimeError):
    """Raised when the middleware is used as it cannot work."""


class ServingMiddleware:
    """Gives every HTTP request of an application its phases.

    ``app.add_middleware(ServingMiddleware, config=ServingConfig(callbacks=[…]))`` for Starlette and FastAPI, or
    ``ServingMiddleware(app, config)`` around any ASGI application.

    A request is one step, and its callbacks are no steps of their own: telling of them would cost more than most of
    them do. An error of a callback fails the request, with the callback's name on it; an error of an observer never
    does.

    Args:
        app: The application.
        config: Its callbacks and observers. The observers watch while the application's lifespan lasts.
    """

    def __init__(self, app: ASGIApp, config: ServingConfig) -> None:
        self._app = app
        self._config = config
        self._pre_request, self._post_request = PreRequest(config=config), PostRequest(config=config)
        callbacks = [each for each in config.callbacks if not isinstance(each, Observer)]
        self._here = _Here(config.name, callbacks)
        self._steps = Bus(config.name)
        subscribe_all(self._steps, config.callbacks)
        self._telling = Telling(self._steps, config.name, config.told_per_second)
        self._lifespan_is_missing = self._telling.wanted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the application's whole lifespan."""
        if scope["type"] != "http":
            await (self._live if scope["type"] == "lifespan" else self._app)(scope, receive, send)
            return
        if self._lifespan_is_missing:
            raise ServingError(
                f"the observers of {self._config.name!r} watch during the application's lifespan, which did not reach "
                "the middleware: put it around the outermost application, and run that with its lifespan on"
            )
        exchange = _Exchange(self._here.callbacks, self._post_request, Request(scope, receive), send)
        if not self._telling.wanted:
            await self._answer(exchange, receive)
            return
        began, error = time.perf_counter(), None
        if self._telling.alone(began):
            async with self._telling.step(exchange.request) as step:
                try:
                    await self._answer(exchange, receive)
                finally:
                    step.attributes["status"] = exchange.status
            return
        try:
            await self._answer(exchange, receive)
        except BaseException as caught:
            error = caught
            raise
        finally:
            self._telling.count(exchange.request, exchange.status, time.perf_counter() - began, error)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the observers watch from the application's start-up to its shutdown."""
        error = None
        async with self._steps:
            self._lifespan_is_missing = False
            try:
                async with anyio.create_task_group() as tasks:
                    if self._telling.wanted:
                        tasks.start_soon(self._telling.flush_forever)
                    try:
                        await self._app(scope, receive, send)
                    except Exception as caught:  # noqa: BLE001  # it leaves below, out of the group, as it came
                        error = caught
                    tasks.cancel_scope.cancel()
            finally:
                self._lifespan_is_missing = self._telling.wanted
                with anyio.CancelScope(shield=True):
                    await self._telling.flush()
        if error is not None:
            raise error

    async def _answer(self, exchange: _Exchange, receive: Receive) -> None:
        """Have the application, or what a callback put in its place, answer the request."""
        request, context = exchange.request, exchange.context
        try:
            await exchange.callbacks.publish(self._pre_request, context)
            app = context.data.get(ANSWER, self._app)
            await app(request.scope, receive if request.untouched else request.replayed(receive), exchange.send)
        except Exception:
            exchange.status = exchange.status or _SERVER_ERROR
            raise


class _Here(threading.local):
    """The bus of the callbacks in this thread: a bus belongs to one, and a test client serves each request in another."""

    def __init__(self, name: str, callbacks: Iterable[Any]) -> None:
        self.callbacks = Bus(f"{name} callbacks")
        subscribe_all(self.callbacks, callbacks)


class _Exchange:
    """One request on its way through: what its callbacks share, and what has become of its response."""

    __slots__ = ("_event", "_response", "_send", "callbacks", "context", "request", "status")

    def __init__(self, callbacks: Bus, event: PostRequest, request: Request, send: Send) -> None:
        self.callbacks = callbacks
        self._event = event
        self._send = send
        self._response: ResponseStart | None = None
        self.request = request
        self.context = Context()
        self.context.data[REQUEST] = request  # as what was there first: no callback has changed it
        self.status = 0

    async def send(self, message: Message) -> None:
        """Send one message of the response, as the callbacks want it."""
        if message["type"] == "http.response.start":
            self._response = response = ResponseStart(message)
            self.context.data[RESPONSE] = response
            await self.callbacks.publish(self._event, self.context)
            self.status = response.status
            message = response.message
        elif self._response is not None and self._response.rewritten and message["type"] == "http.response.body":
            message = await self._response.chunk(message)
        await self._send(message)
