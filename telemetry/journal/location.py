"""Where journals are kept and how they are found again."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from platformdirs import user_state_path

from phasebus.telemetry.journal.format import JournalError
from phasebus.telemetry.run import RunIdentity


def runs_folder() -> Path:
    """Return the folder of all runs: below PHASEBUS_STATE_DIR, or else in the user's state folder (XDG).

    A user without a home, such as a container's random user id, gets a folder below that for temporary files.
    """
    state = os.environ.get("PHASEBUS_STATE_DIR")
    if state:
        return Path(state) / "runs"
    try:
        folder = user_state_path("phasebus")
    except RuntimeError:  # there is no HOME and no entry of the user
        folder = Path("~")
    if not folder.is_absolute() or folder == Path("/.local/state/phasebus"):
        folder = Path(tempfile.gettempdir()) / f"phasebus-{os.getuid()}"
    return folder / "runs"


def journal_path(run: str) -> Path:
    """Return where the journal of the run with this id is kept."""
    return runs_folder() / f"{run}.jsonl"


def journal_of(identity: RunIdentity) -> Path:
    """Return where a process keeps its journal: that of the run, or as a member of it one in the folder beside that."""
    path = journal_path(identity.run)
    return path.with_suffix("") / f"{identity.node}.jsonl" if identity.member else path


def find_journal(run: str | None = None) -> Path:
    """Return the journal named by a path, a run's id or the beginning of one; of the last run by default.

    Raises:
        JournalError: There is none, or several begin like that.
    """
    if run is not None and (os.sep in run or run.endswith(".jsonl")):
        path = Path(run)
        if not path.is_file():
            raise JournalError(f"there is no journal at {run}")
        return path
    folder = runs_folder()
    if (taken := next((each for each in (folder, folder.parent) if each.is_file()), None)) is not None:
        raise JournalError(
            f"{taken} is a file, and the journals of runs are to be in a folder there; see PHASEBUS_STATE_DIR"
        )
    journals = sorted(folder.glob(f"{run or ''}*.jsonl"))
    if not journals:
        wanted = f"no run {run!r}" if run else "no run yet"
        raise JournalError(f"there is {wanted} in {folder}; start one with `phasebus demo` or `phasebus up`")
    if run is not None and len(journals) > 1 and folder / f"{run}.jsonl" not in journals:
        found = ", ".join(path.stem for path in journals)
        raise JournalError(f"several runs begin with {run!r}: {found}")
    return folder / f"{run}.jsonl" if run is not None and folder / f"{run}.jsonl" in journals else journals[-1]
