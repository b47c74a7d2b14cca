"""The cache of `huggingface_hub`: where a snapshot lies, and how it is found by a branch or a tag.

The layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache.
"""

from __future__ import annotations

from pathlib import Path

from phasebus.initializer.downloads.inventory import missing_of_inventory
from phasebus.initializer.downloads.protocol import Listing
from phasebus.initializer.downloads.sources.hub_listing import COMMIT


def snapshot_folder(cache: Path, repo: str, commit: str) -> Path:
    """Return the folder of a commit's files."""
    return _repository_folder(cache, repo) / "snapshots" / commit


def refs_of(cache: Path, repo: str, revision: str, commit: str) -> dict[Path, str]:
    """Return the file by which a branch or a tag leads to its commit; none for a commit."""
    return {} if COMMIT.fullmatch(revision) else {_repository_folder(cache, repo) / "refs" / revision: commit}


def cached_snapshot(cache: Path, repo: str, revision: str) -> Listing | None:
    """Return the snapshot of a revision in the cache; None if there is none, or one that lacks files.

    Which files it should have is known for downloads of phasebus. `huggingface_hub` notes nothing of the kind, but gives
    a file its name when it is complete; the files of a model are checked when it is used.
    """
    commit = revision
    if not COMMIT.fullmatch(revision):
        try:
            commit = (_repository_folder(cache, repo) / "refs" / revision).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return None
        if not COMMIT.fullmatch(commit):
            return None
    folder = snapshot_folder(cache, repo, commit)
    if not folder.is_dir() or missing_of_inventory(folder):
        return None
    return Listing(files=(), folder=folder, revision=commit, in_place=True)


def _repository_folder(cache: Path, repo: str) -> Path:
    return cache / f"models--{repo.replace('/', '--')}"
