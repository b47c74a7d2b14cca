"""Whether an address can be listened on, and what to write if not."""

from __future__ import annotations

import errno
import ipaddress
import socket
from urllib.parse import urlsplit


def listen_error(host: str, port: int) -> OSError | None:
    """Return why this machine cannot listen on `host` and `port`; None if it can. Nothing listens afterwards."""
    if address_alone(host) is not None:
        return OSError(errno.EINVAL, "it is more than an address")
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return None
    except OSError as error:
        return error


def is_taken(error: OSError) -> bool:
    """Return whether another program listens there, so that another port helps."""
    return error.errno == errno.EADDRINUSE


def reason_of(error: OSError) -> str:
    """Return the reason in `error` without the address, which Python adds."""
    return str(error.strerror or error).partition(" (while ")[0]


def free_text(host: str, port: int) -> str:
    """Return that the port of this address is free, or will be: with 0, the system picks one."""
    return f"a free port of {host} is picked" if port == 0 else f"{endpoint(host, port)} is free"


def endpoint(host: str, port: int) -> str:
    """Return the address and the port in one text, as in a URL."""
    return f"[{host}]:{port}" if _is_address(host) and ":" in host else f"{host}:{port}"


def address_alone(host: str) -> str | None:
    """Return the address in `host` if that has more than an address, such as ``0.0.0.0:9464``; None otherwise."""
    if _is_address(host):
        return None
    try:
        alone = urlsplit(host if "//" in host else f"//{host}").hostname
    except ValueError:  # brackets without an address
        return None
    return alone if alone and alone != host.lower() else None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
