"""Progress on standard error while something starts: a live tree on a terminal, lines elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Final

from rich.console import Console, RenderableType
from rich.live import Live

from phasebus.bus import Bus, BusStateError
from phasebus.initializer.cli.live import LiveTree, step_line
from phasebus.initializer.cli.output import indented, keep_loggers_enabled
from phasebus.initializer.cli.remote import Follower, RemoteStart
from phasebus.initializer.cli.status_lines import StatusThread
from phasebus.observers import LogObserver, ProgressObserver
from phasebus.observers.redrawing import can_redraw
from phasebus.telemetry import Timeline, redact
from phasebus.telemetry.verdict import Step

logger = logging.getLogger("phasebus.startup")

_LATE_SECONDS: Final = 0.25
"""The longest that the end of a start may be late on the terminal, in seconds."""


def log_to_stderr(bus: Bus, timeline: Timeline, nodes: RemoteStart | None = None) -> StatusThread:
    """Log the steps of `bus`, and the log messages of phasebus, as lines on standard error; return what logs the state.

    Args:
        bus: The bus.
        timeline: The timeline of its steps.
        nodes: The steps of all nodes of a cluster, from its hub; None for a single node.
    """
    console = Console(stderr=True)
    _log_to(console)
    for observer in (LogObserver(), ProgressObserver(console)):
        bus.observe(None, observer)
    return StatusThread(
        partial(_state, timeline, nodes),
        lambda line: logger.info("%s", redact(line)),
        report_stuck=nodes is not None,
    )


@contextmanager
def show_progress(bus: Bus, timeline: Timeline, nodes: RemoteStart | None = None) -> Iterator[None]:
    """Show the steps of `bus` during the block: as a tree on a terminal, as lines elsewhere.

    Args:
        bus: The bus.
        timeline: The timeline of its steps.
        nodes: The steps of all nodes of a cluster, from its hub; None for a single node.
    """
    with ExitStack() as stack:
        try:
            _show(bus, timeline, nodes, stack)
        except BusStateError:
            raise
        except Exception as error:  # noqa: BLE001  # such as a limit of threads; no output may prevent a start
            logger.warning("the progress is not shown: %s", redact(str(error) or type(error).__name__))
        yield


def _show(bus: Bus, timeline: Timeline, nodes: RemoteStart | None, stack: ExitStack) -> None:
    """Begin to show the steps; `stack` ends that."""
    console = Console(stderr=True)
    draws_tree = can_redraw(console)
    if draws_tree:
        _log_to(console)
        tree = Live(console=console, get_renderable=lambda: _tree(timeline, nodes), refresh_per_second=4)
        stack.enter_context(tree)
    else:
        stack.callback(log_to_stderr(bus, timeline, nodes).close)
    if nodes is not None:
        log = partial(_log_others, timeline, nodes)
        follower = Follower(nodes) if draws_tree else Follower(nodes, log)
        stack.callback(follower.close)
    if draws_tree:
        stack.callback(_wait_for_end, timeline)  # or the last state that is drawn would be one before the end


def _log_others(timeline: Timeline, nodes: RemoteStart, changed: list[dict[str, Any]]) -> None:
    """Log the steps of other nodes; an observer logs those of this one."""
    own = {step["id"] for step in timeline.state()["steps"]}
    for step in nodes.announced([each for each in changed if each["id"] not in own]):
        logging.getLogger("phasebus").info("%s: %s", step["node"], step_line(step, time.time()).plain)


def _log_to(console: Console) -> None:
    logger = logging.getLogger("phasebus")
    keep_loggers_enabled()
    if not any(isinstance(handler, _ConsoleHandler) for handler in logger.handlers):
        logger.handlers.clear()  # removes the handler for warnings
        handler = _ConsoleHandler(console)
        handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", datefmt="%H:%M:%S"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


def _wait_for_end(timeline: Timeline) -> None:
    """Wait a moment until no outermost step runs: the observer of `timeline` has a thread of its own, and may be late."""
    deadline = time.monotonic() + _LATE_SECONDS
    while time.monotonic() < deadline:
        if not any(each["outcome"] == "running" and "parent" not in each for each in timeline.state()["steps"]):
            return
        time.sleep(_LATE_SECONDS / 50)


def _tree(timeline: Timeline, nodes: RemoteStart | None) -> RenderableType:
    steps, remaining, stuck = _state(timeline, nodes)
    return LiveTree(steps, time.time(), remaining, stuck)


def _state(
    timeline: Timeline, nodes: RemoteStart | None
) -> tuple[dict[str, Step], Mapping[str, Any] | None, Sequence[Mapping[str, Any]]]:
    """Return the steps by id, the time remaining and what is stuck, in this process and on all nodes."""
    state = timeline.state()
    steps: dict[str, Step] = {} if nodes is None else dict(nodes.steps)
    # The timeline has newer states of this process's steps than the hub.
    steps.update((step["id"], step) for step in state["steps"])
    if nodes is None:
        return steps, state["remaining"], state["stuck"]
    return steps, nodes.remaining(time.time()) or state["remaining"], nodes.about.get("stuck") or state["stuck"]


class _ConsoleHandler(logging.Handler):
    """Writes through a console, so that lines do not interrupt progress bars."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        if getattr(record, "reminder", False):
            return  # the status lines name the step that the start waits for
        text = indented(self.format(record))
        self._console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)
