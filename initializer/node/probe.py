"""Probing whether an engine is alive."""

from __future__ import annotations

from inspect import isawaitable


async def probe_engine(engine: object) -> None:
    """Call the engine's `probe`, which may be a coroutine function; an engine without one passes.

    Raises:
        Exception: The error that `probe` raised: the engine has died.
    """
    probe = getattr(engine, "probe", None)
    if callable(probe) and isawaitable(answer := probe()):
        await answer
