"""The ids of steps: those of their spans, unless two processes use the same one.

vLLM seeds the generator that OpenTelemetry draws span ids from, so the workers of an engine repeat each other's ids
wherever our plugin has not replaced that generator. A span arrives before its parent does, for the parent ends later.
"""

from __future__ import annotations

import hashlib
from typing import Final

from phasebus.initializer.engines.vllm.reports import ProcessKey, StepReport

_NESTED: Final = frozenset({"run_loader", "initialize_model", "download_weights", "load_weights", "compile_inductor"})
"""Steps whose parent is always a step of the same process."""


class StepIds:
    """Gives every step an id of its own, by its process, its span and its beginning."""

    def __init__(self) -> None:
        self._ids: dict[tuple[str, ProcessKey, int], str] = {}
        self._latest: dict[tuple[str, ProcessKey], str] = {}
        self._used: set[str] = set()
        self._owners: dict[str, ProcessKey] = {}

    def of(self, report: StepReport) -> str:
        """Return the id of the step that `report` is about.

        The first process that uses an id keeps it; a step of another one gets an id that is derived from both.
        """
        if not report.traced:  # parent and child report it, each with its own clock reading
            return report.step
        full, short = (report.step, report.key, report.began_ns), (report.step, report.key)
        if (known := self._ids.get(full)) is not None:
            return known
        chosen = self._latest.get(short)  # what its children have as their parent already
        if chosen is None or chosen in self._used:
            chosen = self._claim(report.step, report.key, 0 if chosen is None else report.began_ns)
        self._used.add(chosen)
        self._ids[full] = self._latest[short] = chosen
        return chosen

    def of_parent(self, report: StepReport) -> str | None:
        """Return the id of the step that the step of `report` belongs to."""
        if report.parent is None:
            return None
        short = (report.parent, report.key)
        if short not in self._latest and report.name in _NESTED:
            self._latest[short] = self._claim(report.parent, report.key, 0)
        return self._latest.get(short, report.parent)

    def _claim(self, step: str, key: ProcessKey, began_ns: int) -> str:
        if step not in self._owners:
            self._owners[step] = key
            return step
        return hashlib.sha256(f"{step}:{key.host}:{key.pid}:{began_ns}".encode()).hexdigest()[:16]
