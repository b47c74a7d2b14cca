"""What runs in the engine's own process: vLLM's asynchronous engine. Read from vLLM 0.32."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import Any
from uuid import uuid4

from phasebus.initializer.engines.vllm.arguments import check_arguments


class EngineActor:
    """Holds an engine; made an actor by `phasebus.initializer.ray.actors`.

    Args:
        log: The file that its output, and that of every process it starts, is appended to.
    """

    def __init__(self, log: str) -> None:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(output, stream.fileno())
        self._engine: Any = None

    def where(self) -> tuple[str, int]:
        """Return the name of the machine and the id of the process."""
        return platform.node(), os.getpid()

    async def load(self, preload: bool) -> None:
        """Import vLLM, blocking this process for as long as that takes.

        Args:
            preload: Whether it is imported beside this process too, for its children.
        """
        if preload:
            from phasebus.initializer.engines.vllm.inside import forkserver

            forkserver.begin()
        import vllm.v1.engine.async_llm  # noqa: F401

        from phasebus.initializer.engines.vllm.inside.processes import suppress_own_start_report

        suppress_own_start_report()

    async def start(self, args: Mapping[str, Any], env: Mapping[str, str]) -> None:
        """Start the engine, blocking this process for as long as that takes.

        Args:
            args: The engine's own arguments.
            env: Variables that were not known when this process was started.

        Raises:
            EngineError: vLLM knows no argument of that name.
        """
        os.environ.update(env)
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        check_arguments(args, {field.name for field in fields(AsyncEngineArgs) if field.init})
        self._engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**args))

    async def generate(self, prompt: str, sampling: Mapping[str, Any]) -> str:
        """Return what the model makes of `prompt`."""
        from vllm import SamplingParams

        outputs = self._engine.generate(prompt, SamplingParams(**sampling), request_id=uuid4().hex)
        texts = [str(output.outputs[0].text) async for output in outputs]  # each is the whole text so far
        return texts[-1] if texts else ""

    async def probe(self) -> None:
        """Raise vLLM's EngineDeadError if its engine core, or a worker, is gone."""
        await self._engine.check_health()

    async def stop(self) -> None:
        """End the engine and its processes in order."""
        if self._engine is not None:
            # its workers do not go when they are asked to (vLLM 0.32, on the CPU); whoever ends the actor ends them
            self._engine.shutdown(timeout=1.0)
            self._engine = None
