"""A small HTTP server in a thread and event loop of its own."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import Callable
from typing import Any

import uvicorn

from phasebus.bus import PhasebusError


class PortTakenError(PhasebusError):
    """Raised when the service cannot listen where it was told to."""


class Server:
    """Serves an ASGI application until it is closed.

    The address is bound when the server is made, so that a port that is taken shows before anything else is begun.

    Args:
        app: The application.
        host: The address to listen on; loopback unless told otherwise.
        port: The port; 0 picks a free one.
        name: What it is called in messages and as a thread.

    Raises:
        PortTakenError: The address cannot be had.
    """

    def __init__(
        self, app: Callable[..., Any], host: str = "127.0.0.1", port: int = 0, *, name: str = "service"
    ) -> None:
        self.name = name
        self.host = host
        self._socket = _bound(name, host, port)
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
            log_level="critical",
            ws="none",
        )
        self._server = _Quiet(config)
        self._thread = threading.Thread(target=self._run, name=f"phasebus {name}", daemon=True)

    @property
    def url(self) -> str:
        """Where it is to be reached from this machine."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def start(self) -> None:
        """Begin to answer; connections made since the server was made are answered as well."""
        self._thread.start()

    def close(self, seconds: float = 2.0) -> None:
        """Answer no more; wait for what is being answered for `seconds` at most."""
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(seconds)
        self._server.force_exit = True
        self._socket.close()

    def _run(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._socket]))


class _Quiet(uvicorn.Server):
    """A server that leaves the process's signals alone."""

    def capture_signals(self) -> Any:
        """Capture nothing: this is a thread of somebody else's program."""
        import contextlib

        return contextlib.nullcontext()


def _bound(name: str, host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortTakenError(
                f"port {port} on {host}, for the {name}, is taken by another program (perhaps another phasebus); "
                f"name another port, or 0 for any free one"
            ) from error
        raise PortTakenError(f"the {name} cannot listen on {host}:{port}: {error.strerror or error}") from error
    return listener
