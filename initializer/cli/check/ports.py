"""Whether a port can be listened on."""

from __future__ import annotations

import socket


def reason_not_to_listen(host: str, port: int) -> str | None:
    """Return why this machine cannot listen on `host` and `port`; None if it can. Nothing listens afterwards."""
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return None
    except OSError as error:
        return str(error.strerror or error)
