"""Finding runs: all of them, those of a configuration, and the one that a name means."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from phasebus.telemetry.history.configuration import FINGERPRINT
from phasebus.telemetry.journal import JournalError, Run, RunSummary, find_journal, read_journal, runs_folder, summarize
from phasebus.telemetry.journal.location import preferred

LAST: Final = "last"
PREVIOUS: Final = "previous"
USUAL: Final = "usual"
"""The name that stands for the runs of the same configuration as another one."""

USUAL_RUNS: Final = 10
"""How many runs of a configuration, the newest ones, make up the usual."""

_MAX_SUMMARIES: Final = 500
_SHORTEST_FINGERPRINT: Final = 4


def recorded_runs(folder: Path | None = None, most: int = _MAX_SUMMARIES) -> Iterator[RunSummary]:
    """Yield the summaries of the newest runs, the last one first; journals that cannot be read are left out.

    Args:
        folder: The folder of the journals; by default that of this user.
        most: How many journals are read at most.
    """
    try:
        journals = preferred(each for each in (folder or runs_folder()).iterdir() if each.suffix == ".jsonl")
    except OSError:
        return
    for journal in journals[: -most - 1 : -1]:
        with suppress(JournalError):
            yield summarize(journal)


def find_run(name: str | None = None) -> Path:
    """Return the journal of a run.

    Args:
        name: Its id or the beginning of it, the path of its journal, ``last`` or ``previous``; or a configuration's
            fingerprint, a model, or the name of a node or cluster, whose last run is returned. By default the last run.

    Raises:
        JournalError: No journal matches, or several do.
    """
    if name is None or name == LAST:
        return find_journal()
    if name == PREVIOUS:
        return _previous()
    try:
        return find_journal(name)
    except JournalError as error:
        if os.sep in name and os.path.exists(name):
            raise
        found = next((each.path for each in recorded_runs() if _means(name, each)), None)
        if found is None:
            error.add_note("`phasebus runs list` lists the runs that are there")
            raise
        return found


def usual_runs(of: RunSummary | Run, most: int = USUAL_RUNS) -> Sequence[Run]:
    """Return the newest other runs with the same configuration as `of` that have become ready, the last one first.

    Raises:
        JournalError: `of` has no recorded configuration, or no other run has the same one.
    """
    summary = summarize(of.path) if isinstance(of, Run) else of
    fingerprint = summary.attributes.get(FINGERPRINT)
    if fingerprint is None:
        raise JournalError(f"the run {summary.run} has no recorded configuration, so no other run can be usual for it")
    found: list[Run] = []
    for each in recorded_runs(summary.path.parent):
        if len(found) == most:
            break
        same = each.attributes.get(FINGERPRINT) == fingerprint and each.kind == summary.kind
        if same and each.outcome == "finished" and each.run != summary.run:
            with suppress(JournalError):
                found.append(read_journal(each.path))
    if not found:
        raise JournalError(f"no other run with the configuration {fingerprint} has become ready")
    return found


def run_before(run: RunSummary | Run) -> RunSummary | None:
    """Return the last run before `run` that started the same model in the same way; None without one."""
    summary = summarize(run.path) if isinstance(run, Run) else run
    for each in recorded_runs(summary.path.parent):
        if each.run < summary.run and (each.kind, each.model) == (summary.kind, summary.model):
            return each
    return None


def _previous() -> Path:
    journals = preferred(runs_folder().glob("*.jsonl"))
    if len(journals) < 2:
        raise JournalError(f"there is no previous run in {runs_folder()}")
    return journals[-2]


def _means(name: str, run: RunSummary) -> bool:
    fingerprint = str(run.attributes.get(FINGERPRINT, ""))
    return name in (run.name, run.model) or (
        len(name) >= _SHORTEST_FINGERPRINT and fingerprint != "" and fingerprint.startswith(name)
    )
