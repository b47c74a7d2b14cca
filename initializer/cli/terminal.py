"""What is said on standard error while something starts: a live tree on a terminal, lines elsewhere."""

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
from phasebus.initializer.cli.live import live_tree, said
from phasebus.initializer.cli.watched import Follower, Watched
from phasebus.observers import LogObserver, ProgressObserver, Watchdog
from phasebus.telemetry import Timeline


def log_to_stderr(bus: Bus) -> None:
    """Have what happens on `bus` said on standard error in lines, and what phasebus logs, and nobody else's log."""
    console = Console(stderr=True)
    _log_to(console)
    for observer in (LogObserver(), ProgressObserver(console), Watchdog()):
        bus.observe(None, observer)


@contextmanager
def show_progress(bus: Bus, timeline: Timeline, cluster: str | None = None) -> Iterator[None]:
    """Show what happens on `bus` as a tree for as long as this is entered; where that is no terminal, in lines.

    Args:
        bus: The bus.
        timeline: What has happened on it.
        cluster: The URL of the service that tells of all nodes of a cluster; None where there is one node.
    """
    console = Console(stderr=True)
    nodes = None if cluster is None else Watched(cluster)
    with ExitStack() as stack:
        if console.is_terminal:
            _log_to(console)
            bus.observe(None, Watchdog())
            tree = Live(console=console, get_renderable=lambda: _tree(timeline, nodes), refresh_per_second=4)
            stack.enter_context(tree)
        else:
            log_to_stderr(bus)
        if nodes is not None:
            tell = partial(_tell_of_others, timeline, nodes)
            follower = Follower(nodes) if console.is_terminal else Follower(nodes, tell)
            stack.callback(follower.close)
        yield


def _tell_of_others(timeline: Timeline, nodes: Watched, changed: list[dict[str, Any]]) -> None:
    """Say what happens on other nodes; what happens here is said already."""
    own = {step["id"] for step in timeline.state()["steps"]}
    for step in nodes.news([each for each in changed if each["id"] not in own]):
        logging.getLogger("phasebus").info("%s: %s", step["node"], said(step, time.time()).plain)


def _log_to(console: Console) -> None:
    logger = logging.getLogger("phasebus")
    if not any(isinstance(handler, _ConsoleHandler) for handler in logger.handlers):
        logger.handlers.clear()  # the one for warnings alone
        handler = _ConsoleHandler(console)
        handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", datefmt="%H:%M:%S"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


def _tree(timeline: Timeline, nodes: Watched | None) -> RenderableType:
    steps = {} if nodes is None else dict(nodes.steps)
    steps.update((step["id"], step) for step in timeline.state()["steps"])  # what happens here is known here first
    return live_tree(steps, time.time())


class _ConsoleHandler(logging.Handler):
    """Writes through a console, which keeps lines and bars apart."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        self._console.print(self.format(record), markup=False, highlight=False, soft_wrap=True)
