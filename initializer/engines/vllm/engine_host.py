"""One engine in the process that runs it: vLLM's asynchronous engine and its OpenAI server. Read from vLLM 0.32."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any
from uuid import uuid4

from phasebus.initializer.engines.vllm.arguments import check_arguments
from phasebus.initializer.engines.vllm.inside.compile_times import after_compilation, with_compilation
from phasebus.initializer.engines.vllm.openai_server import OpenAIServer


class EngineHost:
    """Runs one engine in this process.

    Args:
        server: The engine's server, whose port is bound; None for an engine that does not serve.
    """

    def __init__(self, server: OpenAIServer | None) -> None:
        self._engine: Any = None
        self._engine_args: Any = None
        self._server = server

    async def load_server(self) -> Mapping[str, float]:
        """Import the server and check its arguments; blocks this process meanwhile.

        Returns:
            What was compiled for that, as the attributes of a step.

        Raises:
            EngineError: An argument is wrong.
        """
        compiled: dict[str, float] = {}
        end = after_compilation(lambda *compilation: compiled.update(with_compilation(compiled, *compilation)))
        try:
            if self._server is not None:
                self._server.load()
        finally:
            end()
        return compiled

    async def start(self, args: Mapping[str, Any], env: Mapping[str, str]) -> None:
        """Start the engine; blocks this process meanwhile.

        Args:
            args: The engine's own arguments.
            env: Variables that were not known when this process was started.

        Raises:
            EngineError: vLLM has no argument of that name.
        """
        os.environ.update(env)
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        check_arguments(args, {field.name for field in fields(AsyncEngineArgs) if field.init})
        self._engine_args = AsyncEngineArgs(**args)
        self._engine = AsyncLLM.from_engine_args(self._engine_args)

    async def serve(self) -> str | None:
        """Serve the engine; return the URL once the server answers, or None if it has no server.

        Raises:
            EngineError: The server has ended.
        """
        return None if self._server is None else await self._server.start(self._engine, self._engine_args)

    async def generate(self, prompt: str, sampling: Mapping[str, Any]) -> str:
        """Return the model's continuation of `prompt`."""
        from vllm import SamplingParams

        outputs = self._engine.generate(prompt, SamplingParams(**sampling), request_id=uuid4().hex)
        texts = [str(output.outputs[0].text) async for output in outputs]  # each is the whole text so far
        return texts[-1] if texts else ""

    async def probe(self) -> None:
        """Raise vLLM's EngineDeadError if its engine core, or a worker, is gone, or EngineError if its server is."""
        await self._engine.check_health()
        if self._server is not None:
            self._server.check()

    async def stop(self) -> None:
        """Shut the engine down, after the requests that run."""
        if self._server is not None:
            await self._server.stop()
        if self._engine is not None:
            # its workers ignore that (vLLM 0.32, on the CPU); ending their processes ends them
            self._engine.shutdown(timeout=1.0)
            self._engine = None
