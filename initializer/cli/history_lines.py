"""What the history shows of a start, as lines below its table: its configuration, and why it missed caches."""

from __future__ import annotations

from collections.abc import Iterator

from phasebus.initializer.cli.report.caches import compared_uses
from phasebus.telemetry.history import FINGERPRINT
from phasebus.telemetry.journal import Run

_MOST_CHARACTERS = 200
"""Of the reason that a line shows; `phasebus report caches` shows all."""


def history_lines(run: Run) -> Iterator[str]:
    """Yield the configuration of `run`, and each cache that it missed unlike the run before it with the same model."""
    root = run.root
    fingerprint = None if root is None else root.attributes.get(FINGERPRINT)
    if fingerprint is None:
        return
    yield f"configuration {fingerprint}"
    for use in compared_uses(run)[1]:
        if use.changes is not None:
            why = use.explanation
            shown = why if len(why) <= _MOST_CHARACTERS else f"{why[:_MOST_CHARACTERS]}…"
            yield f"missed the cache of {use.cache.replace('_', ' ')}s: {shown}"
