"""Packages of the registry that this machine uses: resolved by uv, or downloaded as wheels and unpacked in part."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from platformdirs import user_cache_path

from tests.support.programs import without

UV = str(Path(sys.prefix) / "bin" / "uv")
UNPACKED = user_cache_path("phasebus-tests") / "unpacked-wheels"
"""Outside the work tree, so that a fresh clone reuses what another has downloaded."""

_DOWNLOAD_SECONDS = 300
_RESOLVE_SECONDS = 300


def index_options() -> list[str]:
    """Return uv's options for the indexes that pip's variables name; uv does not read those."""
    options = []
    if url := os.environ.get("PIP_INDEX_URL"):
        options += ["--index-url", url]
    for url in os.environ.get("PIP_EXTRA_INDEX_URL", "").split():
        options += ["--extra-index-url", url]
    if folder := os.environ.get("PIP_FIND_LINKS"):
        options += ["--find-links", folder]
    return options


class ResolutionError(Exception):
    """Raised when requirements have no solution; the message is uv's."""


def resolve(requirements: Sequence[str], *options: str) -> list[str]:
    """Return the pins (``name==version``) that uv resolves `requirements` to."""
    command = [UV, "pip", "compile", "--quiet", "--no-header", "--no-annotate", *index_options(), *options, "-"]
    for tried in ([*command, "--offline"], command):  # a resolution from uv's cache is ten times as fast
        ended = subprocess.run(
            tried, input="\n".join(requirements), capture_output=True, text=True, check=False, timeout=_RESOLVE_SECONDS
        )
        if ended.returncode == 0:
            return [line for line in ended.stdout.splitlines() if "==" in line]
    raise ResolutionError(ended.stderr)


def unpacked_sources(package: str, version: str) -> Path:
    """Return a folder with the Python sources and the metadata of a wheel, which is downloaded once and not installed."""
    folder = UNPACKED / f"{package}-{version}"
    if folder.is_dir():
        return folder
    with tempfile.TemporaryDirectory() as temporary:
        pip = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--no-cache-dir",
            "--only-binary",
            ":all:",
        ]
        downloaded = subprocess.run(
            [*pip, "--dest", temporary, f"{package}=={version}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=_DOWNLOAD_SECONDS,
        )
        if downloaded.returncode != 0:
            without(f"{package} {version} cannot be downloaded: {downloaded.stderr.strip()[-300:]}")
        (wheel,) = Path(temporary).glob("*.whl")
        UNPACKED.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=UNPACKED))
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.endswith((".py", "METADATA")):
                    archive.extract(name, partial)
        try:
            partial.rename(folder)
        except OSError:  # another process was faster
            shutil.rmtree(partial)
    return folder
