"""No engine: for nodes that only fetch the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phasebus.initializer.engines.protocol import EngineError, Launch, Prepared


class NoEngine:
    """The launcher, and the engine, of a node that serves nothing."""

    def check(self, args: Mapping[str, Any]) -> None:
        """Do nothing: there is nothing that could be missing."""

    async def prepare(self, launch: Launch) -> None:
        """Do nothing."""

    async def start(self, launch: Launch, prepared: Prepared | None) -> NoEngine:
        """Return at once."""
        return self

    async def generate(self, prompt: str, **sampling: Any) -> str:
        """Raise EngineError: there is nobody to ask."""
        raise EngineError("this node was started with `engine: none`, which only fetches the model")

    async def probe(self) -> None:
        """Do nothing: there is nothing that could die."""

    async def close(self) -> None:
        """Do nothing."""
