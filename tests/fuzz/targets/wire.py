"""Bytes on the hub's connection. A peer is disconnected or answered, and the state of the cluster stays describable.

The first byte of an input is the size of the pieces in which the others arrive. If it is even, they are the lines of one
parcel from an authenticated node: few mutations of a whole parcel get past its header.
"""

from __future__ import annotations

import json
from typing import Any

from phasebus.bus import StepStarted
from phasebus.initializer.cluster.hub.state import ClusterState
from phasebus.initializer.cluster.hub.wire import MAX_PARCEL_BYTES, Parcel, _Connection
from phasebus.observers.history import HistoryObserver
from phasebus.telemetry.history.live import LiveForecast
from phasebus.telemetry.stuck import StuckStep
from tests.support.journal_lines import begun, ended, line, progressed
from tests.support.outputs import encoded_timeline

_SECRET = b"secret"
_OPENED = line("JournalOpened", format=1, phasebus="1", host="h", pid=1, process_created=1.0)
_STEPS = begun("a" * 16, "node", "n") + progressed("a" * 16, "node", "n", 1, 2) + ended("a" * 16, "node", "n", "failed")
_LOST = begun("b" * 16, "phase", "download", node="n", lost=True) + ended(
    "b" * 16, "phase", "download", node="n", lost=1
)
_DRIVER = begun("c" * 16, "cluster", "c", nodes=2) + _LOST + line("JournalClosed")


def _parcel(lines: bytes, *, node: str = "n", **fields: Any) -> bytes:
    return json.dumps([*Parcel(node, 0, **fields), len(lines)]).encode() + b"\n" + lines


_STUCK = StuckStep(
    step="b" * 16, name="load", process="w", pid=7, running_seconds=9.0, reason="waits", stacks=("main",)
).plain()

INSTRUMENTED = ["phasebus.initializer.cluster.hub", "phasebus.telemetry.journal.decoder", "phasebus.telemetry.stuck"]
SEEDS = [
    b"\xff"
    + _SECRET
    + b"\n"
    + _parcel(_OPENED + _STEPS, target="10.0.0.1:80")
    + _parcel(_DRIVER, node="driver", dropped=3),
    b"\3"
    + _SECRET
    + b"\n"
    + _parcel(_OPENED + line("EngineDied", phase="x", error="gone") + line("StuckSteps", stuck=[_STUCK])),
    b"\xff" + _SECRET + b"\n" + _parcel(b"\xff\n{\n" + b"[" * 200 + b"\n"),
    b"\xfe" + _OPENED + _STEPS,
    b"\xfe" + _DRIVER,
    b"\2" + _OPENED + line("EngineDied", phase="x", error="gone") + line("StuckSteps", stuck=[_STUCK]),
]
TOKENS = [
    _SECRET + b"\n", b'["n", 0, 0, null, 5]\n', b'"event": ', b'"span": ', b'"attributes": {', b'"node": ', b'"lost": ',
    b'"retold": ', b'"cluster"', b'"nodes": ', b'"outcome": ', b'"done": ', b"1e999", b"-1", b"NaN", b"\\ud800", b"null",
]  # fmt: skip


class _Transport:
    """The socket's end that the hub writes to."""

    def __init__(self) -> None:
        self.written = b""
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        self.aborted = True


def check(data: bytes) -> None:
    """Send the bytes to a hub, and read its state if it has one."""
    states: list[ClusterState] = []  # made for the first parcel: most inputs have none
    errors: list[Exception] = []

    def receive(parcel: Parcel, lines: bytes) -> int:
        state = states[0] if states else _new_state()
        states[:] = [state]
        try:
            return state.receive(parcel.node, parcel.offset, lines, dropped=parcel.dropped, target=parcel.target)
        except Exception as error:
            errors.append(error)
            raise

    transport = _Transport()
    connection = _Connection(receive, _SECRET, 1.0, set(), {})
    connection._transport = transport  # type: ignore[assignment]
    size = max(1, data[0]) if data else 1
    received = data[1:] if size % 2 else _SECRET + b"\n" + _parcel(data[1:])
    for at in range(0, len(received), size):
        connection.data_received(received[at : at + size])
        assert len(connection._unread) <= MAX_PARCEL_BYTES
        if transport.aborted:
            break
    if errors:
        raise errors[0]
    for answer in transport.written.splitlines():
        json.loads(answer)
    for state in states:
        state.refresh()
        json.dumps(state.describe(), allow_nan=False).encode()
        encoded_timeline(state.timeline).encode()
        if len(data) % 4 == 0:  # takes as long as all the rest
            state.metrics.render("text/plain")


def _new_state() -> ClusterState:
    state = ClusterState()
    state._history = _History(None, state.timeline, state.metrics)
    return state


class _History(HistoryObserver):
    """Finds no earlier starts, and needs no thread to do so."""

    def _begin(self, event: StepStarted) -> None:
        if event.kind == "cluster":
            self._root, self._forecast = event, LiveForecast(event)
