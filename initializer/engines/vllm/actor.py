"""The engine's actor, a process of Ray's: it runs the engine itself, or in a fork of a fork server that stays."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from phasebus.initializer.engines.protocol import ForkServerUse, Serving
from phasebus.initializer.engines.vllm.engine_host import EngineHost
from phasebus.initializer.engines.vllm.forked_host import ForkedHost, fork_host
from phasebus.initializer.engines.vllm.forking import server_imports
from phasebus.initializer.engines.vllm.inside.import_times import ImportTimes
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
        self._server: OpenAIServer | None = None
        self._host: EngineHost | ForkedHost = EngineHost(None)

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

    async def load(self, forkserver: ForkServerUse | None) -> tuple[int, Sequence[Mapping[str, Any]]]:
        """Import vLLM, unless a fork has it; blocks this process meanwhile.

        Args:
            forkserver: "existing": the engine runs in a fork of a server that is there, if it can; "keep": also of one that is
                started, and stays. Otherwise, and with "owned", a server imports vLLM at the same time, for this process's
                children. None: each of them imports by itself.

        Returns:
            The id of the process that runs the engine, and the longest imports: of the server, or of this process.
        """
        offer_stacks()
        if self._redirection is not None:
            self._redirection.wait()
        if forkserver in ("existing", "keep") and (forked := fork_host(self._server, forkserver)) is not None:
            self._host = forked
            return forked.pid, server_imports()
        self._host = EngineHost(self._server)
        if forkserver is not None:
            from phasebus.initializer.engines.vllm.inside.forkserver.begin import start_server

            start_server()
        with (times := ImportTimes()).measuring():
            import vllm.v1.engine.async_llm  # noqa: F401

        if forkserver is not None:
            from phasebus.initializer.engines.vllm.inside.forkserver.imported import record_environment

            record_environment()  # with what the imports have set, as they have in the server

        from phasebus.initializer.engines.vllm.inside.processes import suppress_own_start_report

        suppress_own_start_report()
        return os.getpid(), times.longest()

    async def load_server(self) -> Mapping[str, float]:
        """Import the server and check its arguments; see `EngineHost`."""
        return await self._host.load_server()

    async def start(self, args: Mapping[str, Any], env: Mapping[str, str]) -> None:
        """Start the engine; see `EngineHost`."""
        await self._host.start(args, env)

    async def serve(self) -> str | None:
        """Serve the engine; return the URL once the server answers, or None if it has no server."""
        return await self._host.serve()

    async def generate(self, prompt: str, sampling: Mapping[str, Any]) -> str:
        """Return the model's continuation of `prompt`."""
        return await self._host.generate(prompt, sampling)

    async def probe(self) -> None:
        """Raise the cause if the engine is dead; see `EngineHost`."""
        await self._host.probe()

    async def stop(self) -> None:
        """Shut the engine down, after the requests that run."""
        await self._host.stop()
