"""The paths of journals, and how a journal is found."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from phasebus.telemetry.folders import state_folder
from phasebus.telemetry.journal.format import JournalError
from phasebus.telemetry.run import RunIdentity


def runs_folder() -> Path:
    """Return the folder of all runs: below PHASEBUS_STATE_DIR, or else in the user's state folder (XDG)."""
    return state_folder() / "runs"


def journal_path(run: str) -> Path:
    """Return the path of the journal of the run with the id `run`."""
    return runs_folder() / f"{run}.jsonl"


def journal_of(identity: RunIdentity) -> Path:
    """Return the path of a process's journal: the run's own, or for a member of the run a file in the folder beside it."""
    path = journal_path(identity.run)
    name = identity.node.replace(os.sep, "_").replace("\0", "_")
    return path.with_suffix("") / f"{name}.jsonl" if identity.member else path


def find_journal(run: str | None = None) -> Path:
    """Return the journal with a path, a run's id or the beginning of one; by default that of the last run of this user.

    Raises:
        JournalError: No journal matches, or several do.
    """
    if run is not None and (os.sep in run or run.endswith(".jsonl")):
        path = Path(run)
        if not path.is_file():
            raise JournalError(f"no journal at {run}")
        return path
    folder = runs_folder()
    if (taken := next((each for each in (folder, folder.parent) if each.is_file()), None)) is not None:
        raise JournalError(
            f"{taken} is a file, but the journals of runs need a folder there. Set PHASEBUS_STATE_DIR to another folder"
        )
    journals = sorted(folder.glob(f"{glob.escape(run or '')}*.jsonl"))
    if not journals:
        wanted = f"no run {run!r}" if run else "no run yet"
        raise JournalError(f"{wanted} in {folder}. Start one with `phasebus demo` or `phasebus up`")
    if run is not None and len(journals) > 1 and folder / f"{run}.jsonl" not in journals:
        found = ", ".join(path.stem for path in journals)
        raise JournalError(f"several runs begin with {run!r}: {found}")
    if run is None:
        return readable(journals)[-1]
    return folder / f"{run}.jsonl" if folder / f"{run}.jsonl" in journals else journals[-1]


def readable(journals: Sequence[Path]) -> Sequence[Path]:
    """Return those of `journals` that this user may read, or all if that is none: users may share a folder."""
    return [each for each in journals if os.access(each, os.R_OK)] or journals
