"""Running the lifespan of an application, including an application without one."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send


async def run_lifespan(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> Exception | None:
    """Run the lifespan of `app`, and complete the parts that it does not, so that the server can start and stop.

    An application that raises before its first message either has no lifespan or is broken; only the server's own setting
    can distinguish the two (ASGI lifespan protocol, 2.0). That error is returned, for the caller to raise.

    Raises:
        Exception: The error that `app` raised after its first message.
    """
    received: set[str] = set()
    sent: set[str] = set()

    async def receive_and_note() -> Message:
        message = await receive()
        received.add(message["type"])
        return message

    async def note_and_send(message: Message) -> None:
        sent.add(message["type"])
        await send(message)

    try:
        await app(scope, receive_and_note, note_and_send)
    except Exception as error:
        if received or sent:
            raise
        return error
    if any(each.endswith(".failed") for each in sent):
        return None
    for part in ("lifespan.startup", "lifespan.shutdown"):
        if part not in received:
            await receive()
        if f"{part}.complete" not in sent:
            await send({"type": f"{part}.complete"})
    return None
