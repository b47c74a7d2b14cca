"""What is said on standard error while something starts: a live tree on a terminal, lines elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.live import Live

from phasebus.bus import Bus
from phasebus.initializer.cli.live import live_tree
from phasebus.observers import LogObserver, ProgressObserver, Watchdog
from phasebus.telemetry import Timeline


def tell_people(bus: Bus) -> None:
    """Have what happens on `bus` said on standard error in lines, and what phasebus logs, and nobody else's log."""
    console = Console(stderr=True)
    _log_to(console)
    for observer in (LogObserver(), ProgressObserver(console), Watchdog()):
        bus.observe(None, observer)


@contextmanager
def shown_to_people(bus: Bus, timeline: Timeline) -> Iterator[None]:
    """Show what happens on `bus` as a tree for as long as this is entered; where that is no terminal, in lines."""
    console = Console(stderr=True)
    if not console.is_terminal:
        tell_people(bus)
        yield
        return
    _log_to(console)
    bus.observe(None, Watchdog())
    with Live(console=console, get_renderable=lambda: _tree(timeline), refresh_per_second=4):
        yield


def _log_to(console: Console) -> None:
    logger = logging.getLogger("phasebus")
    if not logger.handlers:
        handler = _ConsoleHandler(console)
        handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", datefmt="%H:%M:%S"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


def _tree(timeline: Timeline) -> RenderableType:
    return live_tree({step["id"]: step for step in timeline.state()["steps"]}, time.time())


class _ConsoleHandler(logging.Handler):
    """Writes through a console, which keeps lines and bars apart."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        self._console.print(self.format(record), markup=False, highlight=False, soft_wrap=True)
