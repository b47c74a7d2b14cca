"""Closing the running steps of a lost node under their original ids.

The steps are read from the node's journal if this machine can read it, else from the hub, which may lack the last second.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, cast

from phasebus.bus import CALLBACK, Bus, StepKind, StepOutcome
from phasebus.initializer.downloads.events import DOWNLOAD, FILE, LISTING
from phasebus.initializer.engines.protocol import ENGINE_STEP
from phasebus.initializer.pipeline.phases import PHASE
from phasebus.telemetry.journal import JournalError, RecordedStep, read_journal

_KINDS: Final[Mapping[str, StepKind]] = {
    kind.name: kind for kind in (PHASE, DOWNLOAD, LISTING, FILE, ENGINE_STEP, CALLBACK)
}
"""The step kinds that have their own event classes."""

_UNSENT_SECONDS = 5.0
"""Steps that ended within this time before a process died may not have been exported, in seconds: spans are batched for half
a second, and a busy machine or collector delays them further. Exporting a span twice is better than losing it."""


def recorded_steps(journal: Path, run: str) -> list[RecordedStep]:
    """Return the steps in a node's journal; none if this machine cannot read it."""
    try:
        recorded = read_journal(journal)
    except JournalError:
        return []
    return list(recorded.steps) if recorded.run == run else []


async def close_steps(bus: Bus, node: str, steps: Iterable[RecordedStep], reason: Exception) -> None:
    """Publish on `bus` that every running step of a lost node ended with the outcome ``died``.

    Steps that ended shortly before the loss are published again, because their spans may not have been exported.

    Args:
        bus: The bus with the observers of the cluster.
        node: The node's name. It is an attribute of each event; so are ``lost`` for a running step, and ``retold`` for a step
            that had ended.
        steps: The steps of the node.
        reason: The error to record for the running steps.
    """
    known = list(steps)
    last_ns = max((step.end_ns or step.start_ns for step in known), default=0)
    now_ns = time.time_ns()
    to_monotonic = time.monotonic_ns() - now_ns
    for step in known:
        died = step.outcome in ("running", "died")
        if not died and (step.traced or step.end_ns is None or last_ns - step.end_ns > _UNSENT_SECONDS * 1e9):
            continue
        kind = _KINDS.get(step.kind, StepKind(step.kind))
        fields: dict[str, Any] = {
            "step": step.id,
            "parent": step.parent,
            "kind": step.kind,
            "name": step.name,
            "attributes": {**step.attributes, "node": node, "lost" if died else "retold": True},
        }
        begun = kind.started(**fields, time_ns=step.start_ns, monotonic_ns=max(0, step.start_ns + to_monotonic))
        await bus.publish(begun)
        end_ns = now_ns if died or step.end_ns is None else step.end_ns
        fields |= {
            "time_ns": end_ns,
            "monotonic_ns": max(0, end_ns + to_monotonic),
            "seconds": max(0, end_ns - step.start_ns) / 1e9,
        }
        if died:
            await bus.publish(kind.failed(**fields, outcome="died", error=reason))
        elif step.outcome == "finished":
            await bus.publish(kind.finished(**fields))
        else:
            await bus.publish(
                kind.failed(**fields, outcome=cast("StepOutcome", step.outcome), error=type(reason)(step.error))
            )
