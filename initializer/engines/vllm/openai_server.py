"""vLLM's OpenAI server, for an engine that runs in this process.

vLLM's command makes the engine and its server together, and ends its process with them. Here the engine is a part of a
node, and its process has other callers, so only the application is vLLM's. Read from vLLM 0.32 and 0.29.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import socket
import ssl
import urllib.request
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from http import HTTPStatus
from typing import Any, Final

from phasebus.initializer.engines.protocol import EngineError, Serving
from phasebus.initializer.engines.vllm.listener import bind, prepare_to_listen
from phasebus.initializer.engines.vllm.server_arguments import import_first, parse_server_arguments
from phasebus.printable import address_text

APPLICATIONS: Final = ("vllm.entrypoints.launchers.app", "vllm.entrypoints.openai.api_server")
"""The modules with `build_app`: since vLLM 0.29, and before."""

STATES: Final = ("vllm.entrypoints.launchers.api_server.app_state", "vllm.entrypoints.openai.api_server")
"""The modules with `init_app_state`."""

VALIDATORS: Final = ("vllm.entrypoints.launchers.launcher", "vllm.entrypoints.openai.api_server")
"""The modules with `validate_api_server_args`."""

_GENERATE: Final = ("vllm.entrypoints.generate.api_router",)
"""Modules that the application imports while it is built; they are imported beforehand if they exist."""

_TLS: Final = ("ssl_keyfile", "ssl_certfile", "ssl_ca_certs", "ssl_cert_reqs", "ssl_ciphers")
_H11_LIMITS: Final = ("h11_max_incomplete_event_size", "h11_max_header_count")
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # by the address that reaches it from here
_POLL_SECONDS: Final = 0.05
_START_POLL_SECONDS: Final = 0.005
_ANSWER_SECONDS: Final = 5.0


class OpenAIServer:
    """The server of one engine.

    Args:
        serving: How it serves.
        own_address: The address of this machine, for the URL of a server that listens on all addresses.
        listener: The bound socket; None binds it.

    Raises:
        EngineError: Its port cannot be bound.

    Attributes:
        serving: How it serves.
        own_address: The address of this machine.
        listener: The bound socket.
        port: The port that is bound.
    """

    def __init__(self, serving: Serving, own_address: str, listener: socket.socket | None = None) -> None:
        self.serving = serving
        self.own_address = own_address
        self.listener = listener or bind(serving.host, serving.port, exact=serving.exact)
        self.port: int = self.listener.getsockname()[1]
        self._args = Namespace()
        self._server: Any = None
        self._task: asyncio.Task[None] | None = None

    def load(self) -> None:
        """Import the server, and check its arguments; takes seconds, and needs no engine.

        Raises:
            EngineError: An argument is wrong.
        """
        for modules in (APPLICATIONS, STATES):
            import_first(modules)
        for module in _GENERATE:
            with suppress(ModuleNotFoundError):
                importlib.import_module(module)
        self._args = parse_server_arguments(self.serving.args)
        try:
            import_first(VALIDATORS).validate_api_server_args(self._args)
        except KeyError as error:
            raise EngineError(f"vLLM's server rejects serve.args: {error.args[0]}") from error

    async def start(self, engine: Any, engine_args: Any) -> str:
        """Serve `engine`; return the URL once the server answers.

        Args:
            engine: vLLM's AsyncLLM.
            engine_args: The AsyncEngineArgs that it was made with.

        Raises:
            EngineError: The server has ended.
        """
        import uvicorn
        from vllm import envs
        from vllm.tracing import instrument

        args = self._args
        for field in fields(engine_args):
            if hasattr(args, field.name):
                setattr(args, field.name, getattr(engine_args, field.name))
        args.host, args.port = self.serving.host, self.port
        if isinstance(args.served_model_name, str):
            args.served_model_name = [args.served_model_name]

        build = instrument(import_first(APPLICATIONS).build_app, span_name="build_api_server")
        initialize = instrument(import_first(STATES).init_app_state, span_name="init_api_server")
        values = {
            "args": args,
            "engine_client": engine,
            "model_config": engine.model_config,
            "supported_tasks": await engine.get_supported_tasks(),
        }
        app = _call(build, values)
        await _call(initialize, {**values, "state": app.state})
        config = uvicorn.Config(
            app,
            log_level=args.uvicorn_log_level,
            access_log=not args.disable_uvicorn_access_log,
            timeout_keep_alive=envs.VLLM_HTTP_TIMEOUT_KEEP_ALIVE,
            timeout_graceful_shutdown=max(1, round(self.serving.drain_seconds)),
            **{name: getattr(args, name) for name in _TLS},
        )
        for name in _H11_LIMITS:
            setattr(config, name, getattr(args, name))
        # Outside the main thread, uvicorn installs no signal handlers. vLLM ends the server of a dead engine through this.
        self._server = app.state.server = uvicorn.Server(config)
        prepare_to_listen(self.listener)
        self._task = asyncio.get_running_loop().create_task(self._server.serve(sockets=[self.listener]))
        while not self._server.started:  # its own steps: load_http_server, start_http_server
            self.check()
            await asyncio.sleep(_START_POLL_SECONDS)
        check = instrument(self._until_it_answers, span_name="check_api_server")
        await check(self._url(_EVERYWHERE.get(self.serving.host, self.serving.host)))
        return self._url(self.own_address if self.serving.host in _EVERYWHERE else self.serving.host)

    def check(self) -> None:
        """Raise EngineError if the server has ended."""
        if self._task is not None and self._task.done():
            error = None if self._task.cancelled() else self._task.exception()
            raise EngineError(f"its server has ended: {error or 'no error was reported'}")

    async def stop(self) -> None:
        """Accept no more requests, and wait for the running ones, for `drain_seconds` at most."""
        if self._task is None:
            self.listener.close()
            return
        self._server.should_exit = True
        with suppress(Exception):
            async with asyncio.timeout(self.serving.drain_seconds + _POLL_SECONDS):
                await asyncio.shield(self._task)

    def _url(self, host: str) -> str:
        scheme = "https" if self._args.ssl_keyfile and self._args.ssl_certfile else "http"
        return f"{scheme}://{address_text(host, self.port)}"

    async def _until_it_answers(self, url: str) -> None:
        while not await asyncio.to_thread(is_healthy, f"{url}/health"):
            self.check()
            await asyncio.sleep(_POLL_SECONDS)


def is_healthy(url: str) -> bool:
    """Return whether a server of this machine answers 200 at `url`; blocks for a few seconds at most.

    No proxy is used, and no certificate is verified: it is this process's own server.
    """
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusting))
    try:
        with opener.open(url, timeout=_ANSWER_SECONDS) as response:
            return bool(response.status == HTTPStatus.OK)
    except OSError:  # refused, or an HTTPError
        return False


def _call(function: Callable[..., Any], values: dict[str, Any]) -> Any:
    """Call `function` with those of `values` that it has parameters for; versions of vLLM differ."""
    parameters = inspect.signature(function).parameters
    return function(**{name: value for name, value in values.items() if name in parameters})
