"""An engine in another process than its actor: calls, their errors, and either end."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Mapping
from typing import Any

import pytest

from phasebus.initializer.engines.protocol import EngineError
from phasebus.initializer.engines.vllm.forked_host import ForkedHost
from phasebus.initializer.engines.vllm.host_process import serve_calls

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]  # as in the engine's process


class Host:
    """What runs the engine there."""

    def __init__(self) -> None:
        self.stopped = False
        self.may_generate = asyncio.Event()

    async def start(self, args: Mapping[str, Any], env: Mapping[str, str]) -> None:
        raise EngineError(f"no argument {sorted(args)} with {sorted(env)}")

    async def serve(self) -> str:
        return "http://127.0.0.1:8000"

    async def generate(self, prompt: str, sampling: Mapping[str, Any]) -> str:
        await self.may_generate.wait()
        return f"{prompt} {sampling}"

    async def probe(self) -> None:
        self.may_generate.set()
        raise ValueError

    async def stop(self) -> None:
        self.stopped = True


class Command:
    """The process there."""

    pid = 1

    def send_signal(self, number: int, *, group: bool = False) -> None:
        raise AssertionError

    def wait(self) -> int:
        return -signal.SIGKILL


async def test_calls_at_once_return_results_and_errors_of_the_other_process() -> None:
    ours, theirs = socket.socketpair()
    host, forked = Host(), ForkedHost(Command(), ours)
    answering = asyncio.create_task(serve_calls(theirs, host))  # type: ignore[arg-type]
    assert await forked.serve() == "http://127.0.0.1:8000"
    with pytest.raises(EngineError, match=r"^no argument \['a'\] with \['B'\]$"):
        await forked.start({"a": 1}, {"B": "2"})
    generating = asyncio.create_task(forked.generate("text", {"n": 1}))
    with pytest.raises(EngineError, match=r"^ValueError$"):
        await forked.probe()
    assert await generating == "text {'n': 1}"
    assert forked._writer is not None
    forked._writer.close()
    await answering
    assert host.stopped


async def test_a_process_that_ends_fails_the_calls_that_run_and_those_that_follow() -> None:
    ours, theirs = socket.socketpair()
    forked = ForkedHost(Command(), ours)
    generating = asyncio.create_task(forked.generate("text", {}))
    await asyncio.to_thread(theirs.recv, 1)
    theirs.close()
    for call in (generating, forked.probe()):
        with pytest.raises(EngineError, match=r"^the engine's process was ended by SIGKILL"):
            await call
    assert forked._writer is not None
    forked._writer.close()
