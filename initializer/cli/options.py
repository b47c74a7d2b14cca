"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from phasebus.initializer.cli.output import write_err

C = TypeVar("C", bound=Callable[..., Any])

_LARGEST_PORT = 65535
_SERVICE_LINK = ("tcp://", "udp://", "sctp://")
"""How Kubernetes sets PHASEBUS_PORT in every pod beside a Service that is called phasebus."""


def service_options(command: C) -> C:
    """Give a command the options of the HTTP service."""
    for option in (
        click.option(
            "--port",
            type=click.IntRange(0, _LARGEST_PORT),
            callback=lambda _context, _option, value: _port_variable() if value is None else value,
            help="Port of /metrics, 9464 by default; 0 picks a free one. Also PHASEBUS_PORT.",
        ),
        click.option(
            "--host",
            metavar="ADDRESS",
            callback=lambda _context, _option, value: value or os.environ.get("PHASEBUS_HOST") or None,
            help="Address that /metrics listens on, loopback by default. Also PHASEBUS_HOST.",
        ),
    ):
        command = option(command)
    return command


def _port_variable() -> int | None:
    """Return the port that PHASEBUS_PORT names; None, with a warning, if it is no port."""
    text = os.environ.get("PHASEBUS_PORT", "")
    if not text or text.startswith(_SERVICE_LINK):
        return None
    if text.isascii() and text.isdigit() and int(text) <= _LARGEST_PORT:
        return int(text)
    write_err(f"phasebus: PHASEBUS_PORT is {text!r}, which is no port (0 to {_LARGEST_PORT}); it is ignored")
    return None
