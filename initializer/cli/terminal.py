"""What is said on standard error while something starts: lines, and bars among them where it is a terminal."""

from __future__ import annotations

import logging

from rich.console import Console

from phasebus.bus import Bus
from phasebus.observers import LogObserver, ProgressObserver, Watchdog


def tell_people(bus: Bus) -> None:
    """Have what happens on `bus` said on standard error, and what phasebus logs, and nobody else's log."""
    console = Console(stderr=True)
    logger = logging.getLogger("phasebus")
    if not logger.handlers:
        handler = _ConsoleHandler(console)
        handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", datefmt="%H:%M:%S"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    for observer in (LogObserver(), ProgressObserver(console), Watchdog()):
        bus.observe(None, observer)


class _ConsoleHandler(logging.Handler):
    """Writes through a console, which keeps lines and bars apart."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        self._console.print(self.format(record), markup=False, highlight=False, soft_wrap=True)
