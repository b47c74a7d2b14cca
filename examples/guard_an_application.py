"""Callbacks for the requests to a Starlette application: change one, answer in its place, or change the response."""

import anyio
import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from phasebus.bus import Context
from phasebus.initializer.integrations.serving import (
    ANSWER,
    REQUEST,
    RESPONSE,
    PostRequest,
    PreRequest,
    ServingConfig,
    ServingMiddleware,
)


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


def guard(event: PreRequest, context: Context) -> None:
    if "x-key" not in context[REQUEST].headers:
        context[ANSWER] = PlainTextResponse("not for you", 403)


def sign(event: PostRequest, context: Context) -> None:
    context[RESPONSE].headers["x-served-by"] = "phasebus"


app = Starlette(routes=[Route("/hello", hello)])
app.add_middleware(ServingMiddleware, config=ServingConfig(callbacks=[guard, sign]))


async def main() -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost") as client:
        print((await client.get("/hello")).status_code)
        answer = await client.get("/hello", headers={"x-key": "1"})
        print(answer.text, answer.headers["x-served-by"])


if __name__ == "__main__":
    anyio.run(main)
