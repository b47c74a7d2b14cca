"""A run as a trace for Perfetto, chrome://tracing and other viewers of the Chrome trace format.

The format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU (Trace Event Format).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from phasebus.telemetry.analysis.nesting import PlacedStep, nest
from phasebus.telemetry.journal import Run
from phasebus.telemetry.names import span_name


def perfetto(run: Run) -> dict[str, Any]:
    """Return `run` in the Trace Event Format: a process for each node, and as many threads as things ran side by side."""
    nodes: dict[str, int] = {}
    threads: dict[tuple[int, str], int] = {}
    events = [event for top in nest(run) for event in _events(top, run, nodes, threads)]
    names = [_named("process_name", pid, 0, node or "cluster") for node, pid in nodes.items()]
    names += [_named("thread_name", pid, tid, name) for (pid, name), tid in threads.items()]
    return {
        "traceEvents": [*names, *events],
        "displayTimeUnit": "ms",
        "otherData": {"run": run.run, "trace": run.trace, "phasebus": run.phasebus, "state": run.state},
    }


def _events(
    top: PlacedStep, run: Run, nodes: dict[str, int], threads: dict[tuple[int, str], int]
) -> Iterator[dict[str, Any]]:
    tracks: dict[int, str] = {}  # by the id of the object: the track of every step so far
    busy: dict[tuple[str, str], list[PlacedStep]] = {}
    for at in top.walk():
        pid = nodes.setdefault(at.node, len(nodes) + 1)
        wanted = str(at.step.attributes.get("process", "")) or (tracks[id(at.outer)] if at.outer else "start-up")
        track, number = wanted, 1
        while any(_collides(at, other) for other in busy.get((at.node, track), ())):
            number += 1
            track = f"{wanted.split(' #')[0]} #{number}"
        busy.setdefault((at.node, track), []).append(at)
        tracks[id(at)] = track
        yield {
            "ph": "X",
            "pid": pid,
            "tid": threads.setdefault((pid, track), len(threads) + 1),
            "ts": (at.start_ns - run.start_ns) / 1e3,
            "dur": (at.end_ns - at.start_ns) / 1e3,
            "name": span_name(at.step.kind, at.step.name),
            "cat": at.step.kind,
            "args": {
                "name": at.step.name,
                "outcome": at.step.outcome,
                "span": at.step.id,
                **({"error": at.step.error} if at.step.error else {}),
                **at.step.attributes,
            },
        }


def _collides(at: PlacedStep, other: PlacedStep) -> bool:
    """Return whether the two cannot share a track: they overlap, and it is not that one lies inside the other."""
    if at.start_ns >= other.end_ns or other.start_ns >= at.end_ns:
        return False
    contained = other.start_ns <= at.start_ns and at.end_ns <= other.end_ns
    return not (contained and other in at.outward())


def _named(what: str, pid: int, tid: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "pid": pid, "tid": tid, "name": what, "args": {"name": name}}
