"""The application that `serving_http` measures: ``python -m tests.benchmarks.serving_application PORT SORT``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import uvicorn
from fastapi import FastAPI
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from pydantic import BaseModel
from starlette.datastructures import MutableHeaders
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from phasebus.bus import Context
from phasebus.initializer.integrations.serving import (
    REQUEST,
    RESPONSE,
    PostRequest,
    PreRequest,
    ServingConfig,
    ServingMiddleware,
)
from phasebus.observers import MetricsObserver, SpanObserver
from phasebus.telemetry import Metrics, RunIdentity, Tracing

SORTS = ("none", "phasebus", "by hand", "starlette")


class ChatMessage(BaseModel):
    role: str
    content: str


class Chat(BaseModel):
    model: str
    messages: list[ChatMessage]
    temperature: float = 1.0


class _ToNobody(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


async def preprocess(event: PreRequest, context: Context) -> None:
    context[REQUEST].headers["x-tenant"] = "blue"


async def postprocess(event: PostRequest, context: Context) -> None:
    context[RESPONSE].headers["x-served-by"] = "phasebus"


async def both(request: StarletteRequest, call_next: RequestResponseEndpoint) -> Response:
    MutableHeaders(scope=request.scope)["x-tenant"] = "blue"
    response = await call_next(request)
    response.headers["x-served-by"] = "starlette"
    return response


class ByHand:
    """The least that any ASGI middleware does that sets these headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-served-by"] = "hand"
            await send(message)

        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        MutableHeaders(scope=scope)["x-tenant"] = "blue"
        await self._app(scope, receive, sending)


def application(sort: str) -> FastAPI:
    """Return an application that answers a chat, with the middleware `sort`: one of `SORTS`."""
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def chat(asked: Chat) -> dict[str, object]:
        return {"model": asked.model, "choices": [{"message": message} for message in asked.messages]}

    if sort == "phasebus":
        observers = [MetricsObserver(Metrics()), SpanObserver(Tracing(RunIdentity.fresh(), _ToNobody()))]
        config = ServingConfig(callbacks=[preprocess, postprocess, *observers])
        app.add_middleware(ServingMiddleware, config=config)
    elif sort == "by hand":
        app.add_middleware(ByHand)
    elif sort == "starlette":
        app.add_middleware(BaseHTTPMiddleware, dispatch=both)
    return app


if __name__ == "__main__":
    uvicorn.run(application(sys.argv[2]), port=int(sys.argv[1]), log_level="warning", access_log=False)
