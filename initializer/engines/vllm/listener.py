"""The socket of the engine's server, bound before the engine starts: a port in use is an error within seconds."""

from __future__ import annotations

import errno
import socket
from typing import Any, Final

from phasebus.initializer.engines.protocol import EngineError

_PORTS_TRIED: Final = 100
_LARGEST_PORT: Final = 65535


def bind(host: str, port: int, *, exact: bool) -> socket.socket:
    """Return a socket that is bound to `port` of `host` and does not listen yet, as vLLM's own server does it.

    Clients are refused until the engine answers; another program cannot get the port.

    Args:
        host: A name or an address of this machine.
        port: The port; 0 for a free one.
        exact: Whether a port in use is an error; if not, the next free port is bound.

    Raises:
        EngineError: The port is in use, or the address cannot be bound.
    """
    last = port if exact or port == 0 else min(port + _PORTS_TRIED, _LARGEST_PORT)
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )[0]
        for candidate in range(port, last + 1):
            try:
                return _bound(family, (address[0], candidate, *address[2:]))
            except OSError as error:
                if error.errno != errno.EADDRINUSE or candidate == last:
                    raise
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            ports = f"port {port} of {host} is" if last == port else f"the ports {port} to {last} of {host} are"
            raise EngineError(
                f"the engine cannot serve: {ports} in use. Set serve.port to a free port (0 picks one), or start without "
                "a server (serve: null)"
            ) from error
        reason = error.strerror or str(error)
        raise EngineError(f"the engine cannot serve on port {port} of {host}: {reason}. Set serve.host") from error
    raise AssertionError  # the loop returns or raises


def prepare_to_listen(listener: socket.socket) -> None:
    """Let a later server bind the port while connections of this one linger in TIME_WAIT. Call before `listener` listens."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def _bound(family: int, address: tuple[Any, ...]) -> socket.socket:
    """Return a socket bound to `address`, also if connections of a server that has ended linger there.

    While it does not listen, SO_REUSEADDR is off: with it, Linux lets a second socket with the option bind the same address.
    """
    try:
        return _socket(family, address, reuse=False)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
    with _socket(family, address, reuse=True) as probe:
        probe.listen()  # fails if another socket is bound or listens there
    bound = _socket(family, address, reuse=True)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    return bound


def _socket(family: int, address: tuple[Any, ...], *, reuse: bool) -> socket.socket:
    # With the protocol named, asyncio sets TCP_NODELAY for each connection; else an answer on a kept one takes 40 ms.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        made.bind(address)
    except BaseException:
        made.close()
        raise
    return made
