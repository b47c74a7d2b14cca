"""What the command line of a vLLM server says of it: its address, its model, and its probe. Read from vLLM 0.32.

Only `phasebus run` needs it, for a server in which our plugin is not loaded, and for the label `model` until the engine
reports the name itself. Importing vLLM's own parser would take half a minute.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import yaml

from phasebus.initializer.engines.vllm.weights import Weights
from phasebus.printable import address_text
from phasebus.telemetry.files import read_regular

if TYPE_CHECKING:
    import httpx
    from anyio.abc import ByteStream

PLUGIN: Final = "phasebus"
"""The name of our entry point in the group `vllm.general_plugins`."""

_PLUGINS: Final = "VLLM_PLUGINS"
_SERVERS: Final = ("vllm.entrypoints.openai.api_server", "vllm.entrypoints.api_server")
_DEFAULT_PORT: Final = 8000
_SCALARS: Final = (str, int, float)
_MAX_FILE_BYTES: Final = 1_000_000
"""Maximum size of a configuration file that is read."""

_ANY_ADDRESS: Final[Mapping[str, str]] = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
_ANSWERS: Final = frozenset({200, 401, 403})
"""What /health answers once the engine does: with success, or by a middleware of the user's that wants to know who asks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCommand:
    """A command that starts a vLLM server.

    Attributes:
        model: The name it serves its model under; "" if its arguments do not say.
        headless: Whether it starts no HTTP server: the workers of an engine that another node serves.
        health_url: The URL of its /health; None without an HTTP server, or if its port is not known.
        socket: The Unix socket that it listens on instead of a port.
        traces_endpoint: Where its arguments say that it exports its spans; None if they do not say.
        weights: Which weights it loads.
        options: Its options by name, with underscores; True for one without a value. The model is ``model``.
    """

    model: str
    headless: bool
    health_url: str | None
    socket: str | None
    traces_endpoint: str | None = None
    weights: Weights = field(default_factory=Weights)
    options: Mapping[str, str | bool] = field(default_factory=dict)

    async def is_healthy(self, seconds: float = 1.0) -> bool:
        """Return whether the server answers; False if that cannot be asked.

        Args:
            seconds: How long to wait for the answer, in seconds.
        """
        if self.health_url is None or not await self._listens(seconds):
            return False
        # a probe on this machine; the first one imports for 0.3 s, while other tasks of this event loop work
        transport = await anyio.to_thread.run_sync(self._open_transport)
        import httpx

        async with httpx.AsyncClient(transport=transport, timeout=seconds, trust_env=False) as client:
            try:
                return (await client.get(self.health_url)).status_code in _ANSWERS
            except (httpx.HTTPError, httpx.InvalidURL, OSError):
                return False

    async def _listens(self, seconds: float) -> bool:
        """Return whether something accepts connections; until then, HTTPX need not be imported."""
        try:
            address = urlsplit(self.health_url or "")
            with anyio.move_on_after(seconds):
                if self.socket is not None:
                    stream: ByteStream = await anyio.connect_unix(self.socket)
                else:
                    stream = await anyio.connect_tcp(address.hostname or "", address.port or 80)
                await stream.aclose()
                return True
        except (OSError, ValueError):
            pass
        return False

    def _open_transport(self) -> httpx.AsyncHTTPTransport:
        import httpx  # with what it imports, 150 modules; a server with our plugin reports instead

        return httpx.AsyncHTTPTransport(uds=self.socket, verify=False, trust_env=False)


def read_command(arguments: Sequence[str]) -> ServerCommand | None:
    """Return what a command says of the vLLM server it starts; None if it starts none, as far as can be seen.

    Known are ``vllm serve`` and ``python -m vllm.entrypoints.openai.api_server``, also behind other programs (``env``,
    ``uv run``, ``sh -c "…"``), with the options of a ``--config`` file.
    """
    following = _after_program(arguments)
    if following is None:
        return None
    options = _options(following)
    if configured := _value(options, "config"):
        options = {
            **_options_of_file(Path(configured)),
            **{name: values for name, values in options.items() if name or values},
        }
    headless = "headless" in options
    socket = _value(options, "uds") or None
    model = _value(options, "served-model-name") or _value(options, "") or _value(options, "model")
    url = None if headless or "grpc" in options else _health_url(options, socket)
    return ServerCommand(
        model=model,
        headless=headless,
        health_url=url,
        socket=socket,
        traces_endpoint=_value(options, "otlp-traces-endpoint") or None,
        weights=Weights(
            model=_value(options, "") or _value(options, "model"),
            load_format=_value(options, "load-format"),
            revision=_value(options, "revision"),
            cache=_value(options, "download-dir"),
        ),
        options={
            name.lstrip("-").replace("-", "_") or "model": " ".join(values) or True
            for name, values in options.items()
            if name or values
        },
    )


def starts_server(arguments: Sequence[str]) -> bool:
    """Return whether a command starts a vLLM server, as far as can be seen; no file is read."""
    return _after_program(list(arguments)) is not None


def plugin_environment(environment: Mapping[str, str]) -> Mapping[str, str]:
    """Return what has to be added to `environment` so that vLLM loads our plugin: nothing unless a list excludes it."""
    allowed = environment.get(_PLUGINS)
    if allowed is None or PLUGIN in (names := [name for name in allowed.split(",") if name]):
        return {}
    return {_PLUGINS: ",".join([*names, PLUGIN])}


def _after_program(arguments: Sequence[str]) -> Sequence[str] | None:
    """Return the arguments that follow the server's program; None without one."""
    for index, argument in enumerate(arguments):
        program = argument.rsplit("/", 1)[-1]
        if argument in _SERVERS or (program == "api_server.py"):
            return arguments[index + 1 :]
        if program in ("vllm", "vllm.entrypoints.cli.main") and arguments[index + 1 : index + 2] == ["serve"]:
            return arguments[index + 2 :]
        if " " in argument and any(name in argument for name in ("vllm serve", *_SERVERS)):
            try:
                inner = shlex.split(argument)
            except ValueError:
                continue
            if (following := _after_program(inner)) is not None:
                return following
    return None


def _options(arguments: Sequence[str]) -> dict[str, list[str]]:
    """Return the values of each option by its name; those before the first option by ""."""
    options: dict[str, list[str]] = {}
    values = options.setdefault("", [])
    for argument in arguments:
        if argument.startswith("--") and len(argument) > 2:
            name, assigned, value = argument[2:].partition("=")
            values = options[name.replace("_", "-")] = [value] if assigned else []
        elif argument.startswith("-") and not argument[1:2].isdigit() and len(argument) > 1:
            values = options[argument] = []
        else:
            values.append(argument)
    return options


def _options_of_file(path: Path) -> dict[str, list[str]]:
    """Return the options of a vLLM configuration file; none if it cannot be read: vLLM reports that."""
    try:
        content = yaml.safe_load(read_regular(path, _MAX_FILE_BYTES, follow=True))
    except Exception:  # noqa: BLE001  # a value of a wrong form under a tag raises any
        return {}
    return dict(_plain(content)) if isinstance(content, dict) else {}


def _plain(content: Mapping[object, object]) -> Iterator[tuple[str, list[str]]]:
    for key, value in content.items():
        name = "" if key == "model_tag" else str(key).replace("_", "-")
        if isinstance(value, list):
            yield name, [str(each) for each in value if isinstance(each, _SCALARS)]
        elif isinstance(value, _SCALARS) and value is not False:
            yield name, [str(value)]


def _health_url(options: Mapping[str, list[str]], socket: str | None) -> str | None:
    host, port = _value(options, "host"), _value(options, "port") or str(_DEFAULT_PORT)
    if not port.isdigit() or (port == "0" and socket is None):
        return None
    host = _ANY_ADDRESS.get(host, host)
    scheme = "https" if _value(options, "ssl-certfile") or _value(options, "ssl-keyfile") else "http"
    return f"{scheme}://{address_text(host, port)}/health"


def _value(options: Mapping[str, list[str]], name: str) -> str:
    """Return the first value of an option; "" without one."""
    return next(iter(options.get(name, ())), "")
