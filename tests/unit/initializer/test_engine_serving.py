"""The server of an engine: its port, its arguments, and the settings of a node that it follows from."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from phasebus.initializer.downloads.sources import repository_name
from phasebus.initializer.engines.optional import url_of
from phasebus.initializer.engines.protocol import EngineError, Serving
from phasebus.initializer.engines.vllm.listener import bind, prepare_to_listen
from phasebus.initializer.engines.vllm.openai_server import OpenAIServer, is_healthy
from phasebus.initializer.engines.vllm.server_arguments import import_first, words_of
from phasebus.initializer.node.config import LLMConfig, ServeConfig
from tests.support.sockets import sends_small_packets_at_once

HOST = "127.0.0.1"


def test_bound_port_refuses_clients_and_other_programs_until_it_listens() -> None:
    with bind(HOST, 0, exact=True) as bound:
        port = bound.getsockname()[1]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((HOST, port), timeout=5)
        with pytest.raises(EngineError, match=f"port {port} of {HOST} is in use. Set serve.port to a free port"):
            bind(HOST, port, exact=True)
        with bind(HOST, port, exact=False) as following:
            assert following.getsockname()[1] > port
        prepare_to_listen(bound)
        bound.listen()
        socket.create_connection((HOST, port), timeout=5).close()


def test_port_with_lingering_connections_of_a_server_that_ended_is_bound_once() -> None:
    with bind(HOST, 0, exact=True) as first:
        port = first.getsockname()[1]
        prepare_to_listen(first)
        first.listen()
        with socket.create_connection((HOST, port)) as client:
            accepted, _ = first.accept()
            accepted.close()  # this end closes first, so it lingers in TIME_WAIT
            assert client.recv(1) == b""
    with bind(HOST, port, exact=True) as second:
        with pytest.raises(EngineError, match="in use"):
            bind(HOST, port, exact=True)
        prepare_to_listen(second)
        second.listen()


def test_connections_of_the_bound_port_send_small_packets_at_once() -> None:
    assert sends_small_packets_at_once(bind(HOST, 0, exact=True))


def test_address_of_another_machine_is_an_error_that_names_the_setting() -> None:
    with pytest.raises(EngineError, match=r"cannot serve on port 0 of 192.0.2.1: .*Set serve.host"):
        bind("192.0.2.1", 0, exact=True)


def test_health_is_false_where_no_server_listens() -> None:
    with bind(HOST, 0, exact=True) as bound:
        assert not is_healthy(f"http://{HOST}:{bound.getsockname()[1]}/health")


PARSER = argparse.ArgumentParser()
ACTIONS = {
    action.dest: action
    for action in (
        PARSER.add_argument("--api-key", nargs="*"),
        PARSER.add_argument("--middleware", action="append"),
        PARSER.add_argument("--enable-log-deltas", action=argparse.BooleanOptionalAction),
        PARSER.add_argument("--disable-access-log", action="store_true"),
        PARSER.add_argument("--allowed-origins"),
        PARSER.add_argument("--template"),
        PARSER.add_argument("--size", type=int),
    )
}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("api_key", ["a", "b"], ["--api-key", "a", "b"]),
        ("api_key", "a", ["--api-key=a"]),
        ("middleware", ["m.a", "m.b"], ["--middleware=m.a", "--middleware=m.b"]),
        ("enable_log_deltas", True, ["--enable-log-deltas"]),
        ("enable_log_deltas", False, ["--no-enable-log-deltas"]),
        ("disable_access_log", True, ["--disable-access-log"]),
        ("disable_access_log", False, []),
        ("allowed_origins", ["*"], ['--allowed-origins=["*"]']),
        ("template", {"a": 1}, ['--template={"a": 1}']),
        ("template", "-dash", ["--template=-dash"]),
        ("template", None, []),
        ("size", 3, ["--size=3"]),
    ],
)
def test_server_argument_becomes_the_words_that_its_option_expects(name: str, value: object, words: list[str]) -> None:
    assert list(words_of(ACTIONS[name], value)) == words


def test_import_of_a_server_that_no_module_has_says_how_to_start_without(monkeypatch: pytest.MonkeyPatch) -> None:
    assert import_first(("no_such_module.app", "argparse")) is argparse
    with pytest.raises(EngineError, match="serve: null"):
        import_first(("no_such_module.app",))


@pytest.mark.parametrize(
    ("fields", "exact"),
    [({}, False), ({"port": 8000}, True), ({"port": 0}, False), ({"host": "0.0.0.0"}, False)],
)
def test_only_a_configured_port_must_be_free(fields: dict[str, Any], exact: bool) -> None:
    serve = LLMConfig(model="m", serve=ServeConfig(**fields)).serve
    assert serve is not None
    assert serve.exact == exact
    several = serve.with_next_free_port()
    assert not several.exact
    assert several == serve


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("hf://org/model", "org/model"),
        ("hf://org/model@main", "org/model"),
        ("org/model", "org/model"),
        ("s3://bucket/model", None),
        ("https://host/org/model", None),
        ("/models/tiny", None),
    ],
)
def test_model_of_the_hub_is_served_under_its_name_there(model: str, name: str | None) -> None:
    assert repository_name(model) == name


def test_folder_with_the_form_of_a_repository_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert repository_name("org/model") is None


def test_engine_without_a_server_has_no_url() -> None:
    assert url_of(object()) is None
    assert url_of(None) is None


@pytest.mark.skipif(not hasattr(uvicorn.Server, "capture_signals"), reason="a uvicorn older than that of any vLLM")
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # as in the engine's process
@pytest.mark.parametrize(("drain_seconds", "answered"), [(60.0, True), (0.0, False)])
async def test_server_that_stops_lets_running_requests_end_for_its_drain_seconds(
    drain_seconds: float, answered: bool
) -> None:
    arrived, may_end = asyncio.Event(), asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        arrived.set()
        await may_end.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    server = OpenAIServer(Serving(host=HOST, port=0, drain_seconds=drain_seconds), HOST)
    running: Any = uvicorn.Server(uvicorn.Config(slow, lifespan="off", log_config=None, timeout_graceful_shutdown=60))
    running.install_signal_handlers = running.capture_signals = contextlib.nullcontext
    server._server = running
    server._task = asyncio.get_running_loop().create_task(running.serve(sockets=[server.listener]))
    while not running.started and not server._task.done():  # noqa: ASYNC110  # uvicorn's flag
        await asyncio.sleep(0.01)
    reader, writer = await asyncio.open_connection(HOST, server.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await arrived.wait()
    stopping = asyncio.create_task(server.stop())
    while not running.should_exit and not stopping.done():  # noqa: ASYNC110  # uvicorn's flag
        await asyncio.sleep(0.01)
    if answered:
        may_end.set()
    await stopping
    assert server._task.done() == answered
    may_end.set()
    assert (await reader.read()).endswith(b"ok")
    writer.close()
    await server._task
