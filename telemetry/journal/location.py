"""The paths of journals, and how a journal is found.

`os.path` returns False for a file in a folder that this user may not search, where `Path` raises.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
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
        if not os.path.isfile(path):
            raise JournalError(f"no journal at {run}")
        return path
    folder = runs_folder()
    if (taken := next((each for each in (folder, folder.parent) if os.path.isfile(each)), None)) is not None:
        raise JournalError(
            f"{taken} is a file, but the journals of runs need a folder there. Set PHASEBUS_STATE_DIR to another folder"
        )
    try:
        found = sorted(each for each in folder.iterdir() if each.match("*.jsonl") and each.name.startswith(run or ""))
    except FileNotFoundError:
        found = []
    except OSError as error:
        raise JournalError(
            f"cannot read the folder of runs {folder}: {error.strerror}. Set PHASEBUS_STATE_DIR to a folder of this user"
        ) from error
    exact = folder / f"{run}.jsonl"
    journals = [exact] if exact in found else preferred(found) or found
    if not journals:
        wanted = f"no run {run!r}" if run else "no run yet"
        raise JournalError(f"{wanted} in {folder}. Start one with `phasebus demo` or `phasebus up`")
    if run is not None and len(journals) > 1:
        several = ", ".join(path.stem for path in journals)
        raise JournalError(f"several runs begin with {run!r}: {several}")
    return journals[-1]


def preferred(journals: Iterable[Path]) -> list[Path]:
    """Return those of `journals` that this user may read, in the order of their names: its own, or else those of others.

    Users may share a folder. What another one put there is no run of this user, and a named pipe, a folder or the link of
    another user is no journal.
    """
    own: list[Path] = []
    others: list[Path] = []
    for journal in sorted(journals):
        try:
            status = journal.lstat()
            is_own, is_link = status.st_uid == os.geteuid(), stat.S_ISLNK(status.st_mode)
            is_file = stat.S_ISREG((journal.stat() if is_link and is_own else status).st_mode)
            if is_file and os.access(journal, os.R_OK):
                (own if is_own else others).append(journal)
        except OSError:
            continue
    return own or others
