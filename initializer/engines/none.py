"""No engine: for nodes that only fetch the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phasebus.initializer.engines.protocol import EngineError, Launch, Prepared


class NoEngine:
    """The launcher, and the engine, of a node that serves nothing."""

    def check(self, args: Mapping[str, Any]) -> None:
        """Return: nothing can be missing."""

    def workers(self, args: Mapping[str, Any]) -> int:
        """Return 0."""
        return 0

    def span_nodes(
        self, args: Mapping[str, Any], env: Mapping[str, str], bundles: Sequence[int]
    ) -> tuple[Mapping[str, Any], Mapping[str, str]]:
        """Return the arguments and the environment as they are."""
        return args, env

    async def prepare(self, launch: Launch) -> None:
        """Return None: nothing needs time."""

    async def start(self, launch: Launch, prepared: Prepared | None) -> NoEngine:
        """Return this object, at once."""
        return self

    async def generate(self, prompt: str, **sampling: Any) -> str:
        """Raise EngineError: no model is loaded."""
        raise EngineError("this node was started with `engine: none`, which only fetches the model")

    async def probe(self) -> None:
        """Return: nothing can die."""

    async def close(self) -> None:
        """Return: nothing runs."""
