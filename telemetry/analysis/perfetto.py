"""A run as a trace for Perfetto, chrome://tracing and other viewers of the Chrome trace format.

The format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU (Trace Event Format).
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import islice
from typing import Any, Final

from phasebus.telemetry.analysis.nesting import PlacedStep, walk
from phasebus.telemetry.journal import Run
from phasebus.telemetry.redaction import redact, redact_attributes, redact_name
from phasebus.telemetry.span_names import span_name

_MAX_AROUND: Final = 64
"""How many of the steps around one are considered for its track, the innermost first."""


def perfetto(run: Run) -> dict[str, Any]:
    """Return `run` in the Trace Event Format: a process for each node, and as many threads as things ran side by side."""
    nodes: dict[str, int] = {}
    threads: dict[tuple[int, str], int] = {}
    events = list(_events(run, nodes, threads))
    names = [_named("process_name", pid, 0, node or "cluster") for node, pid in nodes.items()]
    names += [_named("thread_name", pid, tid, name) for (pid, name), tid in threads.items()]
    return {
        "traceEvents": [*names, *events],
        "displayTimeUnit": "ms",
        "otherData": {"run": run.run, "trace": run.trace, "phasebus": run.phasebus, "state": run.state},
    }


def _events(run: Run, nodes: dict[str, int], threads: dict[tuple[int, str], int]) -> Iterator[dict[str, Any]]:
    names: dict[
        int, str
    ] = {}  # by the id of the object: for every step so far, what its track is called, without a number
    tracks: dict[tuple[str, str], _Tracks] = {}
    for at in sorted(walk(run), key=lambda at: (at.start_ns, -at.end_ns, at.depth)):
        pid = nodes.setdefault(at.node, len(nodes) + 1)
        outer_name = names.get(id(at.outer), "start-up") if at.outer is not None else "start-up"
        name = names[id(at)] = str(at.step.attributes.get("process", "")) or outer_name
        number = tracks.setdefault((at.node, name), _Tracks()).place(at)
        track = f"{name} #{number}" if number > 1 else name
        yield {
            "ph": "X",
            "pid": pid,
            "tid": threads.setdefault((pid, track), len(threads) + 1),
            "ts": (at.start_ns - run.start_ns) / 1e3,
            "dur": (at.end_ns - at.start_ns) / 1e3,
            "name": redact_name(span_name(at.step.kind, at.step.name)),
            "cat": at.step.kind,
            "args": {
                "name": redact_name(at.step.name),
                "outcome": at.step.outcome,
                "span": at.step.id,
                **({"error": redact(at.step.error)} if at.step.error else {}),
                **redact_attributes(at.step.attributes),
            },
        }


class _Tracks:
    """Tracks of one name: on each, a step either follows the one before or lies inside it."""

    def __init__(self) -> None:
        self._tracks: list[list[PlacedStep]] = []  # on each the running steps, each inside the one before
        self._used: list[tuple[int, int]] = []  # a heap: when the outermost step of a track ends, and the track
        self._free: list[int] = []  # a heap of tracks without a running step
        self._of: dict[int, int] = {}  # by the id of the object: the track of every step so far

    def place(self, at: PlacedStep) -> int:
        """Put a step, no earlier than those before, on the track of one around it or else the first free one.

        Returns:
            The number of the track, from 1.
        """
        while self._used and self._used[0][0] <= at.start_ns:
            track = heappop(self._used)[1]
            self._tracks[track].clear()
            heappush(self._free, track)
        around = self._around(at)
        if around is not None:
            track = around
        else:
            track = heappop(self._free) if self._free else len(self._tracks)
            if track == len(self._tracks):
                self._tracks.append([])
            heappush(self._used, (at.end_ns, track))
        self._tracks[track].append(at)
        self._of[id(at)] = track
        return track + 1

    def _around(self, at: PlacedStep) -> int | None:
        """Return the track of the innermost step around `at` that has room there; None without one."""
        for outer in islice(at.outward(), 1, _MAX_AROUND):
            track = self._of.get(id(outer))
            if track is None:
                continue
            running = self._tracks[track]
            while running and running[-1].end_ns <= at.start_ns:
                running.pop()
            if running and running[-1] is outer and at.end_ns <= outer.end_ns:
                return track
        return None


def _named(what: str, pid: int, tid: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "pid": pid, "tid": tid, "name": what, "args": {"name": name}}
