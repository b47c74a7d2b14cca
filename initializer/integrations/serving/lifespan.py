"""An application's lifespan, also that of an application that has none."""

from __future__ import annotations

import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("phasebus.serving")


async def run_lifespan(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run the lifespan of `app`; what it leaves unanswered is answered for it, so that the server sees a whole one.

    An application without a lifespan raises or returns when it is given one, and is to be served all the same (ASGI
    lifespan protocol, 2.0).

    Raises:
        Exception: What `app` raised after it had begun to take part.
    """
    asked: set[str] = set()
    answered: set[str] = set()

    async def ask() -> Message:
        message = await receive()
        asked.add(message["type"])
        return message

    async def answer(message: Message) -> None:
        answered.add(message["type"])
        await send(message)

    try:
        await app(scope, ask, answer)
    except Exception as error:
        if asked or answered:
            raise
        logger.info("the application answers no lifespan (%s: %s); it is served without", type(error).__name__, error)
    if any(each.endswith(".failed") for each in answered):
        return
    for moment in ("lifespan.startup", "lifespan.shutdown"):
        if moment not in asked:
            await receive()
        if f"{moment}.complete" not in answered:
            await send({"type": f"{moment}.complete"})
