"""Closing the steps that a lost node had begun, under their original ids.

They are read from its journal, if that can be read here; else from the hub, which may have missed the last second.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, cast

from phasebus.bus import CALLBACK, Bus, StepKind, StepOutcome
from phasebus.initializer.downloads.events import DOWNLOAD, FILE
from phasebus.initializer.engines.protocol import ENGINE_STEP
from phasebus.initializer.pipeline.phases import PHASE
from phasebus.telemetry.journal import JournalError, RecordedStep, read_journal

_KINDS: Final[Mapping[str, StepKind]] = {kind.name: kind for kind in (PHASE, DOWNLOAD, FILE, ENGINE_STEP, CALLBACK)}
"""The kinds whose events have classes of their own."""

_UNSENT_SECONDS = 5.0
"""How long before its end a process may have ended spans that it has not exported, in seconds: they wait half a second
for others, and a busy machine or collector delays them further. A span that is exported twice is better than a lost one."""


def recorded_steps(journal: Path, run: str) -> list[RecordedStep]:
    """Return the steps of a node as its journal records them; none if it cannot be read here."""
    try:
        recorded = read_journal(journal)
    except JournalError:
        return []
    return list(recorded.steps) if recorded.run == run else []


async def close_steps(bus: Bus, node: str, steps: Iterable[RecordedStep], reason: Exception) -> None:
    """Publish on `bus` the end of every step that a lost node had begun and not ended: its process died.

    Steps that had ended so shortly before that their spans may not have been exported are published again.

    Args:
        bus: Where the observers of the cluster are.
        node: The node's name, an attribute of each event; others are ``lost``, and ``retold`` for what had ended.
        steps: The steps of the node.
        reason: Why it is lost.
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
