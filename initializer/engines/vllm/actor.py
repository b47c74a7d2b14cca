"""The engine's own process: vLLM's asynchronous engine in a Ray actor. Read from vLLM 0.32."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import fields
from typing import Any
from uuid import uuid4

from phasebus.initializer.engines.protocol import Serving
from phasebus.initializer.engines.vllm.arguments import check_arguments
from phasebus.initializer.engines.vllm.openai_server import OpenAIServer
from phasebus.stack_dump import offer_stacks
from phasebus.telemetry.output_file import redirect_output


class EngineActor:
    """Runs one engine. `phasebus.initializer.ray.actors` makes it an actor.

    Args:
        log: The file that its output, and that of every process it starts, is appended to.
    """

    def __init__(self, log: str) -> None:
        self._redirection = redirect_output(log)
        self._engine: Any = None
        self._engine_args: Any = None
        self._server: OpenAIServer | None = None

    def where(self) -> tuple[str, int]:
        """Return the name of the machine and the id of the process."""
        return platform.node(), os.getpid()

    async def listen(self, serving: Serving) -> int:
        """Bind the port of the engine's server, and return it.

        Raises:
            EngineError: It cannot be bound.
        """
        import ray

        self._server = OpenAIServer(serving, str(ray.util.get_node_ip_address()))
        return self._server.port

    async def load(self, preload: bool) -> None:
        """Import vLLM; blocks this process meanwhile.

        Args:
            preload: Whether a fork server imports it at the same time, for this process's children.
        """
        offer_stacks()
        if self._redirection is not None:
            self._redirection.wait()
        if preload:
            from phasebus.initializer.engines.vllm.inside.forkserver.begin import start_server

            start_server()
        import vllm.v1.engine.async_llm  # noqa: F401

        if preload:
            from phasebus.initializer.engines.vllm.inside.forkserver.imported import record_environment

            record_environment()  # with what the imports have set, as they have in the server

        from phasebus.initializer.engines.vllm.inside.processes import suppress_own_start_report

        suppress_own_start_report()

    async def load_server(self) -> None:
        """Import the server and check its arguments; blocks this process meanwhile.

        Raises:
            EngineError: An argument is wrong.
        """
        if self._server is not None:
            self._server.load()

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
            # its workers ignore that (vLLM 0.32, on the CPU); ending the actor ends them
            self._engine.shutdown(timeout=1.0)
            self._engine = None
