from __future__ import annotations

import re
import tomllib
from email.message import Message

import pytest

from phasebus import __version__
from tests.support.docs import ROOT
from tests.support.release import URLS, ReleaseError, absolute_links, check_changes, check_metadata, repository


def test_change_log_has_the_form_that_a_release_needs() -> None:
    assert check_changes((ROOT / "CHANGELOG.md").read_text())[0] == "[Unreleased]"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("# Changes\n", "neither"),
        ("## 1.0.0\n", "neither"),
        ("## [1.0.0]\n", "neither"),
        ("## [1.0.0] - soon\n", "neither"),
        ("## [Unreleased]\n### News\n", "News"),
    ],
)
def test_change_log_of_another_form_is_rejected(text: str, reason: str) -> None:
    with pytest.raises(ReleaseError, match=reason):
        check_changes(text)


def test_change_log_with_versions_and_known_sections_is_accepted() -> None:
    text = "## [Unreleased]\n### Fixed\n## [1.2.3] - 2026-11-29\n### Added\n#### Any\n## [1.2.3rc1] - 2026-11-01\n"
    assert check_changes(text) == ["[Unreleased]", "[1.2.3] - 2026-11-29", "[1.2.3rc1] - 2026-11-01"]


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("[a](docs/x.md)", "[a](https://r/blob/main/docs/x.md)"),
        ("![a b](docs/x.png)", "![a b](https://r/raw/main/docs/x.png)"),
        ("[a](https://x/y) [b](#c)", "[a](https://x/y) [b](#c)"),
    ],
)
def test_links_of_the_readme_of_a_package_lead_to_the_repository(text: str, result: str) -> None:
    assert absolute_links(text, "https://r") == result


def test_readme_of_a_package_has_no_relative_link() -> None:
    made = absolute_links((ROOT / "README.md").read_text(), repository())
    assert re.findall(r"\]\((?!https://|#)[^)]*\)", made) == []


def complete() -> Message:
    metadata = Message()
    metadata["Version"] = __version__
    for label in URLS:
        metadata["Project-URL"] = f"{label}, https://x"
    for name in ("Author", "License-Expression", "Requires-Python", "Summary", "Keywords", "Description-Content-Type"):
        metadata[name] = "x"
    for number in range(5):
        metadata["Classifier"] = f"C :: {number}"
    return metadata


def test_complete_metadata_are_accepted() -> None:
    assert check_metadata(complete()) == __version__


@pytest.mark.parametrize("name", ["Version", "Project-URL", "Author", "Classifier", "Summary"])
def test_missing_metadata_are_named(name: str) -> None:
    metadata = complete()
    del metadata[name]
    with pytest.raises(ReleaseError):
        check_metadata(metadata)


def test_version_stands_in_one_place_only() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "phasebus.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+([a-z]+\d+)?", __version__)
