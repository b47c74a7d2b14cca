"""A run as a trace for Perfetto, chrome://tracing and other viewers of the Chrome trace format.

The format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU (Trace Event Format).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from phasebus.telemetry.analysis.nesting import PlacedStep, walk
from phasebus.telemetry.journal import Run
from phasebus.telemetry.redaction import redact, redact_attributes, redact_name
from phasebus.telemetry.span_names import span_name


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
    tracks: dict[int, str] = {}  # by the id of the object: the track of every step so far
    running: dict[tuple[str, str], list[PlacedStep]] = {}  # on each track, each inside the one before
    for at in sorted(walk(run), key=lambda at: (at.start_ns, -at.end_ns, at.depth)):
        pid = nodes.setdefault(at.node, len(nodes) + 1)
        outer_track = tracks.get(id(at.outer), "start-up") if at.outer is not None else "start-up"
        wanted = str(at.step.attributes.get("process", "")) or outer_track
        track, number = wanted, 1
        while _collides(at, running.setdefault((at.node, track), [])):
            number += 1
            track = f"{wanted.split(' #')[0]} #{number}"
        running[at.node, track].append(at)
        tracks[id(at)] = track
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


def _collides(at: PlacedStep, track: list[PlacedStep]) -> bool:
    """Return whether `at` overlaps a step on `track` without lying inside it; remove those that have ended."""
    while track and track[-1].end_ns <= at.start_ns:
        track.pop()
    if not track:
        return False
    return at.end_ns > track[-1].end_ns or track[-1] not in at.outward()


def _named(what: str, pid: int, tid: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "pid": pid, "tid": tid, "name": what, "args": {"name": name}}
