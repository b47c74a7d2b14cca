"""The steps of a running start, on a terminal or as lines."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import httpx
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from phasebus.initializer.cli.live import LiveTree, step_line
from phasebus.initializer.cli.remote import RemoteStart, WatchError
from phasebus.initializer.cli.status_lines import StatusLines
from phasebus.observers.redrawing import can_redraw
from phasebus.telemetry.redaction import redact

_RECONNECT_SECONDS = 1.0
_ERRNO = re.compile(r"^\[Errno -?\d+\] ")


def follow(url: str, *, until_ready: bool) -> bool:
    """Show a start until it ends; return whether it has become ready.

    Args:
        url: The address of its service.
        until_ready: Whether to end when the start is ready or has failed.

    Raises:
        WatchError: There is no service.
    """
    start = RemoteStart(url if "://" in url else f"http://{url}")
    console = Console()
    if can_redraw(console):
        with (
            _signals_exit(),
            Live(console=console, get_renderable=lambda: _tree(start), refresh_per_second=4),
        ):
            outcome = _follow(start, None, until_ready=until_ready)
    else:
        outcome = _follow(start, console, until_ready=until_ready)
    return outcome == "finished"


@contextmanager
def _signals_exit() -> Iterator[None]:
    """Exit on a signal that would end this process at once during the block, and leave the terminal without a cursor."""
    handled = []
    if threading.current_thread() is threading.main_thread():
        handled = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    for number in handled:
        signal.signal(number, _exit)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _tree(start: RemoteStart) -> RenderableType:
    if not start.about:
        return Text(f"Connecting to {start.url}")
    now = time.time()
    return LiveTree(dict(start.steps), now + start.offset, start.remaining(now), start.about.get("stuck", ()))


def _follow(start: RemoteStart, console: Console | None, *, until_ready: bool) -> str | None:
    """Follow a start until it closes or, with `until_ready`, is ready or has failed; return the outermost step's outcome."""
    connected = False
    error_shown: object = None
    status = StatusLines(time.time())
    while True:
        try:
            for changed in start.changes():
                connected = True
                if console is not None:
                    now, about = time.time() + start.offset, start.about
                    for step in start.announced(changed):
                        console.print(step_line(step, now, with_error=step.get("error") != error_shown), soft_wrap=True)
                        error_shown = step.get("error") or error_shown
                    if line := status.line(start.steps, now, start.remaining(time.time()), about.get("stuck", ())):
                        console.print(redact(line), markup=False, emoji=False, soft_wrap=True)
                root = start.root
                if until_ready and root is not None and root["outcome"] != "running":
                    return str(root["outcome"])
        except httpx.TransportError as error:
            if not connected:
                reason = _ERRNO.sub("", str(error)) or type(error).__name__
                raise WatchError(
                    f"cannot connect to {start.url}: {reason}. Is this the URL printed by `phasebus up`?"
                ) from error
            if start.root is not None and start.root["outcome"] != "running":
                return str(start.root["outcome"])
            time.sleep(_RECONNECT_SECONDS)  # the service may be restarted
            continue
        return None if start.root is None else str(start.root["outcome"])
