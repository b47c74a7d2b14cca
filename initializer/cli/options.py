"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from phasebus.initializer.cli.output import write_err

C = TypeVar("C", bound=Callable[..., Any])

_LARGEST_PORT = 65535
LONGEST_LINGER_SECONDS = 3600.0
_SERVICE_LINK = ("tcp://", "udp://", "sctp://")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
percent_option = click.option(
    "--percent",
    type=click.FloatRange(0),
    default=2.0,
    show_default=True,
    help="Smallest shift that counts, in percent of the duration before.",
)


def service_options(command: C) -> C:
    """Add the options of the HTTP service to a command."""
    for option in (
        click.option(
            "--linger",
            metavar="SECONDS",
            type=click.FloatRange(0, LONGEST_LINGER_SECONDS),
            callback=lambda _context, _option, value: _linger_variable() if value is None else value,
            help="How long /metrics stays up after a failed start. By default 35 in Kubernetes, and elsewhere if other "
            "machines can reach it and standard error is no terminal; 0 otherwise. Also PHASEBUS_LINGER_SECONDS.",
        ),
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


def starting_options(command: C) -> C:
    """Add the options that `up` and `demo` share to a command."""
    for option in (
        click.option("--verbose", "-v", is_flag=True, help="Show whole tracebacks."),
        service_options,
        click.option("--once", is_flag=True, help="Stop when the node is ready, instead of serving until Ctrl-C."),
    ):
        command = option(command)
    return command


def is_service_link(value: str) -> bool:
    """Return whether `value` is one that Kubernetes sets in pods: PHASEBUS_PORT for a Service with the name phasebus."""
    return value.startswith(_SERVICE_LINK)


def port_of(text: str) -> int | None:
    """Return the port in the value of PHASEBUS_PORT; None if it is not a port."""
    return int(text) if text.isascii() and text.isdigit() and int(text) <= _LARGEST_PORT else None


def _port_variable() -> int | None:
    """Return the port in PHASEBUS_PORT; None if it is unset, or with a warning if it is not a port."""
    text = os.environ.get("PHASEBUS_PORT", "")
    if not text or is_service_link(text):
        return None
    if (port := port_of(text)) is None:
        write_err(f"phasebus: PHASEBUS_PORT is {text!r}, which is no port (0 to {_LARGEST_PORT}); it is ignored")
    return port


def _linger_variable() -> float | None:
    """Return the seconds in PHASEBUS_LINGER_SECONDS; None if it is unset, or with a warning if it is not valid."""
    text = os.environ.get("PHASEBUS_LINGER_SECONDS", "")
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if 0 <= seconds <= LONGEST_LINGER_SECONDS:
        return seconds
    write_err(
        f"phasebus: PHASEBUS_LINGER_SECONDS is {text!r}, which is no number of seconds from 0 to "
        f"{LONGEST_LINGER_SECONDS:g}; it is ignored"
    )
    return None


class StartedThings(click.Command):
    """A command whose arguments are configurations, or after ``--`` a command as for ``phasebus run``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep what follows ``--`` as it is."""
        ctx.obj = ()
        if "--" in args:
            at = args.index("--")
            args, ctx.obj = args[:at], tuple(args[at + 1 :])
        return super().parse_args(ctx, args)
