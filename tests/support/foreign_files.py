"""Files that seem to belong to another user: only root can give real ones away."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def give_away(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
    """Make `paths`, or the links there, seem to belong to another user for `Path.lstat`."""
    lstat = Path.lstat

    def of_another_user(path: Path) -> os.stat_result:
        status = lstat(path)
        return os.stat_result((*status[:4], status.st_uid + 1, *status[5:10])) if path in paths else status

    monkeypatch.setattr(Path, "lstat", of_another_user)
