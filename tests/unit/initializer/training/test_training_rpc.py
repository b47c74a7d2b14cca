from __future__ import annotations

import copy
import pickle
import tempfile
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from phasebus.initializer.integrations.training.rpc import RpcClient, RpcConnectionError, RpcError, call_with_server

pytest.importorskip("ray")  # whose pickling it uses
pytestmark = pytest.mark.anyio


async def echo(method: str, arguments: dict[str, Any]) -> Any:
    return method, arguments


async def test_questions_are_answered_in_turn_however_long_they_are() -> None:
    def ask(address: str) -> list[Any]:
        client = RpcClient(address)
        return [client.call("reported", metrics="x" * size) for size in (0, 1, 3_000_000)]

    answers = await call_with_server(ask, echo)
    assert answers == [("reported", {"metrics": "x" * size}) for size in (0, 1, 3_000_000)]


async def test_a_folder_for_temporary_files_with_a_long_path_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    assert await call_with_server(lambda address: RpcClient(address).call("polled"), echo) == ("polled", {})


async def test_a_handlers_error_reaches_the_client_with_its_notes() -> None:
    async def answer(method: str, arguments: dict[str, Any]) -> str:
        if method == "bad":
            error = ValueError("no such rack")
            error.add_note("raised by the callback 'pin'")
            raise error
        return "well"

    def ask(address: str) -> tuple[str, str]:
        client = RpcClient(address)
        with pytest.raises(RpcError) as caught:
            client.call("bad")
        return str(caught.value), client.call("good")

    assert await call_with_server(ask, answer) == ("ValueError: no such rack\nraised by the callback 'pin'", "well")


async def test_an_answer_that_cannot_travel_is_an_error_too() -> None:
    async def answer(method: str, arguments: dict[str, Any]) -> Any:
        return (each for each in range(1))

    def ask(address: str) -> None:
        with pytest.raises(RpcError, match="TypeError: cannot pickle"):
            RpcClient(address).call("reported")

    await call_with_server(ask, answer)


async def test_a_line_that_has_been_used_is_copied_and_pickled_without_its_connection() -> None:
    def ask(address: str) -> list[Any]:
        client = RpcClient(address)
        client.call("first")
        return [other.call("second") for other in (copy.copy(client), pickle.loads(pickle.dumps(client)))] + [
            client.call("3")
        ]

    assert await call_with_server(ask, echo) == [("second", {}), ("second", {}), ("3", {})]


async def test_an_error_of_the_function_is_raised_unchanged() -> None:
    def fail(address: str) -> None:
        raise LookupError("no such trainer")

    with pytest.raises(LookupError, match="no such trainer"):
        await call_with_server(fail, echo)


async def test_a_cancellation_fails_the_next_call_and_waits_for_the_function() -> None:
    asked, ended = anyio.Event(), threading.Event()

    async def answer(method: str, arguments: dict[str, Any]) -> None:
        asked.set()

    def ask(address: str) -> None:
        client = RpcClient(address)
        try:
            while True:
                client.call("polled")
        except RpcConnectionError:
            ended.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call_with_server, ask, answer)
        await asked.wait()
        tasks.cancel_scope.cancel()
    assert ended.is_set()


async def test_a_call_after_the_end_is_a_connection_error() -> None:
    client = await call_with_server(RpcClient, echo)
    with pytest.raises(RpcConnectionError):
        client.call("polled")
