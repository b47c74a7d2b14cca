"""`make dist`: build the packages, check them, and run one start from the wheel: ``python -m tests.support.release``."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Sequence
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Final

from phasebus import __version__
from tests.support.docs import ROOT
from tests.support.packages import build, copy_tree

URLS: Final = {"Homepage", "Documentation", "Changes", "Issues"}

_SECTIONS: Final = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
_VERSION: Final = re.compile(r"\[(?:Unreleased|\d+\.\d+\.\d+(?:[a-z]+\d+)?\] - \d{4}-\d{2}-\d{2})\]?")
_LINK: Final = re.compile(r"(?P<picture>!?)(?P<text>\[[^\]]*\]\()(?![a-z]+:|#)(?P<target>[^)\s]+)")
_BIN: Final = Path(sys.prefix, "bin")
_TOOLS: Final = ROOT / ".venv-docs" / "bin"


class ReleaseError(Exception):
    """Raised when a package cannot be released; the message says why."""


def release(destination: Path) -> list[Path]:
    """Build an sdist and a wheel into `destination`, check both, and run a start from the wheel; return their paths.

    Raises:
        ReleaseError: One of them cannot be released.
    """
    shutil.rmtree(destination, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        tree = copy_tree(Path(folder, "tree"))
        readme = tree / "README.md"
        readme.write_text(absolute_links(readme.read_text(), repository()))
        build(tree, destination)
    files = sorted(file for file in destination.iterdir() if file.name.endswith((".whl", ".tar.gz")))
    (wheel,) = (file for file in files if file.suffix == ".whl")
    check_changes((ROOT / "CHANGELOG.md").read_text())
    check_metadata(metadata_of(wheel))
    _run([_TOOLS / "twine", "check", "--strict", *files])
    with tempfile.TemporaryDirectory() as folder:
        start_from(wheel, Path(folder))
    return files


def repository() -> str:
    """Return the address of the repository."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return str(project["project"]["urls"]["Homepage"])


def absolute_links(text: str, address: str) -> str:
    """Return a page whose relative links and pictures lead to the repository: a package index has only the page."""

    def replaced(match: re.Match[str]) -> str:
        kind = "raw" if match["picture"] else "blob"
        return f"{match['picture']}{match['text']}{address}/{kind}/main/{match['target']}"

    return _LINK.sub(replaced, text)


def check_changes(text: str) -> list[str]:
    """Check that the change log follows Keep a Changelog: a heading for each version, with known sections; return those.

    Raises:
        ReleaseError: It does not.
    """
    versions = re.findall(r"^## (.+)$", text, re.MULTILINE)
    if not versions or any(not _VERSION.fullmatch(each) for each in versions):
        raise ReleaseError(f"a heading of CHANGELOG.md is neither [Unreleased] nor [VERSION] - DATE: {versions}")
    if unknown := sorted(set(re.findall(r"^### (.+)$", text, re.MULTILINE)) - _SECTIONS):
        raise ReleaseError(f"CHANGELOG.md has the sections {unknown}; known are {sorted(_SECTIONS)}")
    return versions


def check_metadata(metadata: Message) -> str:
    """Check that the metadata of a package are complete, and name the version of the code; return that.

    Raises:
        ReleaseError: They are not.
    """
    if metadata["Version"] != __version__:
        raise ReleaseError(f"the package is {metadata['Version']}, and phasebus.__version__ is {__version__}")
    labels = {str(each).partition(",")[0] for each in metadata.get_all("Project-URL", [])}
    if missing := sorted(URLS - labels):
        raise ReleaseError(f"project.urls lacks {missing}")
    for name in ("Author", "License-Expression", "Requires-Python", "Summary", "Keywords", "Description-Content-Type"):
        if not metadata[name]:
            raise ReleaseError(f"the metadata lacks {name}")
    if len(metadata.get_all("Classifier", [])) < 5:
        raise ReleaseError("the metadata has too few classifiers to be found by")
    return str(metadata["Version"])


def metadata_of(wheel: Path) -> Message:
    """Return the metadata of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def start_from(wheel: Path, folder: Path) -> str:
    """Install `wheel` into an empty environment in `folder`, start a node without an engine there, and return its output.

    Raises:
        ReleaseError: It cannot be installed, or the start fails.
    """
    environment = folder / "environment"
    _run([sys.executable, "-m", "venv", "--without-pip", environment])
    index = ["--index-url", os.environ["PIP_INDEX_URL"]] if os.environ.get("PIP_INDEX_URL") else []
    pins = ["--constraint", str(ROOT / "deploy" / "environment" / "constraints.txt")]
    _run([_BIN / "uv", "pip", "install", "--quiet", *index, *pins, "--python", environment / "bin" / "python", wheel])
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    (folder / "node.yaml").write_text("model: model\nengine: none\nservice: {port: 0}\n")
    command = environment / "bin" / "phasebus"
    variables = {"PATH": os.environ["PATH"], "HOME": str(folder), "PHASEBUS_STATE_DIR": str(folder / "state")}
    version = _run([command, "--version"], folder, variables)
    if __version__ not in version:
        raise ReleaseError(f"phasebus --version prints {version!r}")
    output = _run([command, "up", "node.yaml", "--once"], folder, variables)
    if "ready in" not in output:
        raise ReleaseError(f"the start printed {output!r}")
    return output


def _run(command: Sequence[object], folder: Path = ROOT, environment: dict[str, str] | None = None) -> str:
    ended = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    if ended.returncode != 0:
        raise ReleaseError(f"{' '.join(map(str, command))} failed:\n{ended.stdout}{ended.stderr}")
    return ended.stdout


if __name__ == "__main__":
    try:
        for made in release(ROOT / "dist"):
            print(made.relative_to(ROOT))
    except ReleaseError as error:
        sys.exit(f"phasebus: not ready for a release: {error}")
