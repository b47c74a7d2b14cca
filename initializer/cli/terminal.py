"""Progress on standard error while something starts: a live tree on a terminal, lines elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live

from phasebus.bus import Bus
from phasebus.initializer.cli.live import live_tree, step_line
from phasebus.initializer.cli.remote import Follower, RemoteStart
from phasebus.observers import LogObserver, ProgressObserver
from phasebus.telemetry import Timeline


def log_to_stderr(bus: Bus) -> None:
    """Log the steps of `bus`, and the log messages of phasebus, as lines on standard error."""
    console = Console(stderr=True)
    _log_to(console)
    for observer in (LogObserver(), ProgressObserver(console)):
        bus.observe(None, observer)


@contextmanager
def show_progress(bus: Bus, timeline: Timeline, nodes: RemoteStart | None = None) -> Iterator[None]:
    """Show the steps of `bus` during the block: as a tree on a terminal, as lines elsewhere.

    Args:
        bus: The bus.
        timeline: The timeline of its steps.
        nodes: The steps of all nodes of a cluster, from its hub; None for a single node.
    """
    console = Console(stderr=True)
    with ExitStack() as stack:
        if console.is_terminal:
            _log_to(console)
            tree = Live(console=console, get_renderable=lambda: _tree(timeline, nodes), refresh_per_second=4)
            stack.enter_context(tree)
        else:
            log_to_stderr(bus)
        if nodes is not None:
            log = partial(_log_others, timeline, nodes)
            follower = Follower(nodes) if console.is_terminal else Follower(nodes, log)
            stack.callback(follower.close)
        yield


def _log_others(timeline: Timeline, nodes: RemoteStart, changed: list[dict[str, Any]]) -> None:
    """Log the steps of other nodes; an observer logs those of this one."""
    own = {step["id"] for step in timeline.state()["steps"]}
    for step in nodes.announced([each for each in changed if each["id"] not in own]):
        logging.getLogger("phasebus").info("%s: %s", step["node"], step_line(step, time.time()).plain)


def _log_to(console: Console) -> None:
    logger = logging.getLogger("phasebus")
    if not any(isinstance(handler, _ConsoleHandler) for handler in logger.handlers):
        logger.handlers.clear()  # removes the handler for warnings
        handler = _ConsoleHandler(console)
        handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", datefmt="%H:%M:%S"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


def _tree(timeline: Timeline, nodes: RemoteStart | None) -> RenderableType:
    steps = {} if nodes is None else dict(nodes.steps)
    # The timeline has newer states of this process's steps than the hub.
    steps.update((step["id"], step) for step in timeline.state()["steps"])
    return live_tree(steps, time.time())


class _ConsoleHandler(logging.Handler):
    """Writes through a console, so that lines do not interrupt progress bars."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        self._console.print(self.format(record), markup=False, highlight=False, soft_wrap=True)
