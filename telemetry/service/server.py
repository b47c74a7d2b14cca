"""A small HTTP server in a thread and event loop of its own."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phasebus.bus import PhasebusError
from phasebus.printable import address_text
from phasebus.telemetry.own_threads import OWN_THREADS
from phasebus.telemetry.redaction import redact
from phasebus.telemetry.service.access import Access, AccessControl
from phasebus.telemetry.service.limits import QUEUED_CONNECTIONS, Limits
from phasebus.telemetry.service.local_token import offer_token, withdraw_token
from phasebus.telemetry.service.rates import RateLimit, RequestRate

if TYPE_CHECKING:
    from phasebus.telemetry.service.protocol import LimitedServer

logger = logging.getLogger("phasebus.telemetry")

_IMPORT_SECONDS = 10.0
"""Maximum duration of importing, in seconds. An interpreter that ends while a thread imports never ends."""


class PortTakenError(PhasebusError):
    """Raised when the service cannot listen on its address."""


class Server:
    """Serves an ASGI application until it is closed.

    The constructor binds the address, so that a taken port is an error before anything else begins. The thread imports the
    server and builds the application, so that a start-up does not wait for them.

    Args:
        build: Returns the ASGI application.
        host: The address to listen on.
        port: The port; 0 picks a free one.
        name: Its name in messages, and that of its thread.
        access: Who may read it.
        limits: Its limits; the defaults of `Limits` by default.

    Raises:
        PortTakenError: The address cannot be bound.
    """

    def __init__(
        self,
        build: Callable[[], Callable[..., Any]],
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        name: str = "service",
        access: Access | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.name = name
        self.host = host
        self.port: int
        self._socket = _bound(name, host, port)
        address, self.port = self._socket.getsockname()[:2]
        access = access or Access()
        access = replace(access, hosts=(host, *access.hosts))
        self._own_token = access.own_token if access.is_closed_at(address) else None
        self._token_file: Path | None = None

        def guarded() -> Callable[..., Any]:
            controlled = AccessControl(build(), access, address)
            per_second = self._limits.requests_per_second
            return (
                controlled if per_second is None else RateLimit(controlled, RequestRate(per_second, self._limits.burst))
            )

        self._build = guarded
        self._limits = limits or Limits()
        self._closing = threading.Event()
        self._imported = threading.Event()
        self._server: LimitedServer | None = None
        self._thread = threading.Thread(target=self._run, name=f"phasebus {name}", daemon=True)

    @property
    def url(self) -> str:
        """Its URL on this machine."""
        return url_of_address(self.host, self.port)

    def start(self) -> None:
        """Start to answer, also the connections made since the constructor bound the address."""
        if self._own_token is not None:
            self._token_file = offer_token(self.port, self._own_token)
        self._thread.start()

    def close(self, seconds: float = 2.0) -> None:
        """Stop to answer; wait for the running requests for at most `seconds`."""
        self._closing.set()
        if self._token_file is not None and self._own_token is not None:
            withdraw_token(self._token_file, self._own_token)
        if self._thread.ident is not None:
            self._imported.wait(_IMPORT_SECONDS)
            if self._server is not None:
                self._server.stop()
            self._thread.join(seconds)
        if self._server is not None:
            self._server.force_exit = True
        self._socket.close()

    def _run(self) -> None:
        try:
            try:
                self._server = _uvicorn(self._build, self._limits)
            finally:
                self._imported.set()
            if not self._closing.is_set():
                with OWN_THREADS.counted():
                    asyncio.run(self._server.serve(sockets=[self._socket]))
        except Exception as error:  # noqa: BLE001  # whatever it is, the start-up goes on without the service
            self._socket.close()  # clients are refused, and do not wait for an answer
            if self._closing.is_set():
                return
            reason = redact(str(error) or type(error).__name__)
            logger.warning("the %s does not answer: %s. The start-up goes on without it", self.name, reason)


def url_of_address(host: str, port: int) -> str:
    """Return the URL on this machine of a server that listens on `host`, also if that stands for all addresses."""
    host = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104
    return f"http://{address_text(host, port)}"


def _uvicorn(build: Callable[[], Callable[..., Any]], limits: Limits) -> LimitedServer:
    import uvicorn

    from phasebus.telemetry.service.protocol import ACCEPTED_AT_ONCE, LimitedServer, UnreadConnection

    config = uvicorn.Config(
        build(),
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=1,
        log_level="critical",
        ws="none",
        http=partial(UnreadConnection, limits=limits, unread={}),  # type: ignore[arg-type]  # any factory
        loop="asyncio",
        backlog=ACCEPTED_AT_ONCE,
        proxy_headers=False,  # a client could choose the address that its requests are counted for
    )
    config.load()  # imports the rest
    server = LimitedServer(config)
    server.capture_signals = nullcontext  # type: ignore[method-assign,assignment]  # the process handles its own signals
    return server


def _bound(name: str, host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # With the protocol named, asyncio sets TCP_NODELAY for each connection; else an answer on a kept one takes 40 ms.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as error:  # a kernel without IPv6
        raise _listen_error(name, host, port, error) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(QUEUED_CONNECTIONS)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortTakenError(
                f"port {port} on {host}, for the {name}, is taken by another program, perhaps another phasebus; "
                f"set another port, or 0 for any free one"
            ) from error
        raise _listen_error(name, host, port, error) from error
    return listener


def _listen_error(name: str, host: str, port: int, error: OSError) -> PortTakenError:
    advice = (
        "; name an address of this machine alone, such as 0.0.0.0 or ::" if isinstance(error, socket.gaierror) else ""
    )
    address = address_text(host, port)
    return PortTakenError(f"the {name} cannot listen on {address}: {error.strerror or error}{advice}")
