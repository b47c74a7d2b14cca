"""The handling of one request by the callbacks and the application."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Send

from phasebus.bus import Bus, Context, Outcome
from phasebus.initializer.integrations.serving.events import ANSWER, REQUEST, RESPONSE, PostRequest, PreRequest
from phasebus.initializer.integrations.serving.request import Request
from phasebus.initializer.integrations.serving.response import ResponseStart
from phasebus.initializer.pipeline.callbacks import Spelling
from phasebus.initializer.pipeline.control_flow import error_for
from phasebus.initializer.pipeline.errors import CallbackError

_SERVER_ERROR = 500
"""The status that servers send for an application that raises or returns without a response."""

_SPELLING = Spelling((REQUEST, ANSWER, RESPONSE))

_INSTEAD = {
    REQUEST: "change the existing one, with its headers or replace(…)",
    RESPONSE: "change the existing one, at post_request",
    ANSWER: "the response has begun; set it at pre_request",
}
"""The alternative to a write that would have no effect."""


class Exchange:
    """One request: the context of its callbacks, and its response.

    Args:
        callbacks: The bus with the callbacks.
        events: The events before the application is called and when it answers.
        request: The request.
        send: Sends the response.

    Attributes:
        request: The request.
        status: The HTTP status of the response; 0 before there is one.
    """

    __slots__ = (
        "_callbacks",
        "_context",
        "_failure",
        "_post_request",
        "_pre_request",
        "_response",
        "_send",
        "request",
        "status",
    )

    def __init__(self, callbacks: Bus, events: tuple[PreRequest, PostRequest], request: Request, send: Send) -> None:
        self._callbacks = callbacks
        self._pre_request, self._post_request = events
        self._send = send
        self._response: ResponseStart | None = None
        self._failure: Exception | None = None
        self._context = Context()
        self._context.data[REQUEST] = request  # without an entry in the history
        self.request = request
        self.status = 0

    async def answer(self, app: ASGIApp, receive: Receive) -> None:
        """Answer the request with `app`, or with the application that a callback set as `ANSWER`.

        Raises:
            CallbackError: A callback wrote a key that has no effect.
            Exception: The error of a callback, also if the application caught it; else that of the application.
        """
        request, context = self.request, self._context
        try:
            outcome = await self._callbacks.publish(self._pre_request, context)
            if context.log or outcome.values:
                self._check(outcome, 0, {ANSWER})
                app = self._chosen(app)
            await app(request.scope, receive if request.untouched else request.replayed(receive), self.send)
        except SystemExit as error:
            self._failure = error_for(error)
        except Exception:
            self.status = self.status or _SERVER_ERROR
            if self._failure is None:
                raise
        self.status = self.status or _SERVER_ERROR
        if self._failure is not None:
            raise self._failure

    async def send(self, message: Message) -> None:
        """Send one message of the response, with the changes of the callbacks."""
        if self._failure is not None:
            raise self._failure  # the application caught it and sends more
        try:
            if message["type"] == "http.response.start":
                message = await self._begin(ResponseStart(message))
            elif self._response is not None and self._response.rewritten and message["type"] == "http.response.body":
                message = await self._response.chunk(message)
        except Exception as error:
            self._failure = error
            raise
        await self._send(message)

    async def _begin(self, response: ResponseStart) -> Message:
        context = self._context
        before = len(context.log)
        self._response = context.data[RESPONSE] = response
        outcome = await self._callbacks.publish(self._post_request, context)
        if len(context.log) > before or outcome.values:
            self._check(outcome, before, set())
        self.status = response.status
        return response.message

    def _chosen(self, app: ASGIApp) -> ASGIApp:
        """Return the application that answers: `app`, or the one that a callback set as `ANSWER`."""
        chosen: ASGIApp = self._context.data.get(ANSWER, app)
        if not callable(chosen):
            by = self._context.history(ANSWER)[-1].by
            raise CallbackError(
                f"the callback {by!r} set 'answer' to {chosen!r}, which is not callable; set a response, such as "
                "starlette.responses.PlainTextResponse(…), or another ASGI application"
            )
        return chosen

    def _check(self, outcome: Outcome, since: int, allowed: set[str]) -> None:
        """Raise CallbackError if a callback wrote a key without effect, or returned a response."""
        context = self._context
        _SPELLING.check(context)
        given = {REQUEST: self.request, RESPONSE: self._response}
        for key, value, by, _, _ in context.log[since:]:
            if key in _INSTEAD and key not in allowed and value is not given.get(key):
                raise CallbackError(f"the callback {by!r} wrote {str(key)!r}, which has no effect: {_INSTEAD[key]}")
        for subscription, value in (outcome.values or {}).items():
            if callable(value):
                raise CallbackError(
                    f"the callback {subscription.name!r} returned {value!r}, which nothing reads; to answer with it at "
                    "pre_request, set context[ANSWER], or return {'answer': …}"
                )
