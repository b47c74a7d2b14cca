"""The cache of `huggingface_hub`: the folders of snapshots, and the files that map branches and tags to commits.

The layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache.
"""

from __future__ import annotations

import os
from pathlib import Path

from phasebus.initializer.downloads.inventory import missing_of_inventory
from phasebus.initializer.downloads.protocol import Listing
from phasebus.initializer.downloads.sources.hub_listing import COMMIT
from phasebus.telemetry.files import read_regular

MAX_REF = 1024
"""Maximum size of a file with a commit, in bytes."""

_MOST_SNAPSHOTS = 5
"""Maximum number of other commits whose files are compared with those of the listing."""


def snapshot_folder(cache: Path, repo: str, commit: str) -> Path:
    """Return the folder of a commit's files."""
    return _repository_folder(cache, repo) / "snapshots" / commit


def refs_of(cache: Path, repo: str, revision: str, commit: str) -> dict[Path, str]:
    """Return the file that maps a branch or a tag to its commit; none for a commit."""
    return {} if COMMIT.fullmatch(revision) else {_repository_folder(cache, repo) / "refs" / revision: commit}


def cached_snapshot(cache: Path, repo: str, revision: str) -> Listing | None:
    """Return the snapshot of a revision in the cache; None if there is none, or if files are missing.

    Missing files are detected for downloads of phasebus, which have an inventory. `huggingface_hub` writes no inventory, but
    names a file only when it is complete; the files of a model are checked when it is used.
    """
    commit = revision
    if not COMMIT.fullmatch(revision):
        try:
            commit = read_regular(_repository_folder(cache, repo) / "refs" / revision, MAX_REF).decode("ascii").strip()
        except (OSError, ValueError):
            return None
        if not COMMIT.fullmatch(commit):
            return None
    folder = snapshot_folder(cache, repo, commit)
    if not os.path.isdir(folder) or missing_of_inventory(folder):
        return None
    return Listing(files=(), folder=folder, revision=commit, in_place=True)


def cached_commits(cache: Path, repo: str) -> list[str]:
    """Return the commits whose snapshots are in the cache, the one that was written last first."""
    return [folder.name for folder in _snapshots(cache, repo) if not missing_of_inventory(folder)]


def other_snapshots(cache: Path, repo: str, commit: str) -> tuple[Path, ...]:
    """Return the folders of other commits in the cache, also of incomplete ones, the one that was written last first."""
    return tuple(folder for folder in _snapshots(cache, repo) if folder.name != commit)[:_MOST_SNAPSHOTS]


def _snapshots(cache: Path, repo: str) -> list[Path]:
    """Return the folders of all commits in the cache, the one that was written last first."""
    try:
        folders = [
            folder
            for folder in (_repository_folder(cache, repo) / "snapshots").iterdir()
            if COMMIT.fullmatch(folder.name) and os.path.isdir(folder)
        ]
        return sorted(folders, key=lambda each: each.stat().st_mtime, reverse=True)
    except OSError:
        return []


def _repository_folder(cache: Path, repo: str) -> Path:
    return cache / f"models--{repo.replace('/', '--')}"
