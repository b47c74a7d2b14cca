"""A name out of a listing never leads out of the destination."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasebus.initializer.downloads.errors import DownloadError
from phasebus.initializer.downloads.paths import default_folder, target_of

PARTS = st.one_of(
    st.sampled_from(
        ["..", ".", "", "a", "b c", "~", "C:", ".phasebus", ".PHASEBUS", "\\", "..\\", "\0", "a" * 300, "ü"]
    ),
    st.text(max_size=8),
)


@given(st.lists(PARTS, max_size=5).map("/".join))
def test_a_target_is_inside_or_refused(name: str) -> None:
    folder = Path("/some/where")
    try:
        target = target_of(folder, name)
    except DownloadError as error:
        assert "some/where" in str(error)  # noqa: PT017  # either outcome is right
        return
    assert os.path.normpath(target) == str(target)
    assert folder in target.parents
    assert ".phasebus" not in [part.casefold() for part in target.relative_to(folder).parts[:1]]


@pytest.mark.parametrize("name", ["a", "a/b", "a..b", "..a", "a b/c", "ünï/çødé", "ab:c", "nested/.phasebus"])
def test_ordinary_names_are_taken(name: str, tmp_path: Path) -> None:
    assert target_of(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("../a", r"'\.\.'"),
        ("/etc/passwd", "absolute"),
        ("C:/windows", "absolute"),
        ("a\\b", "backslash"),
        ("a\0b", "control character"),
        ("a\nb", "control character"),
        ("a//b", "empty part"),
        ("", "empty part"),
        (".phasebus/lock", "own state"),
        ("a" * 256, "more than 255 bytes"),
        ("\ud800", "no text"),
    ],
)
def test_a_refusal_says_what_is_wrong(name: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=says):
        target_of(tmp_path, name)


def test_a_symbolic_link_on_the_way_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "nested").symlink_to(tmp_path / "outside")
    with pytest.raises(DownloadError, match="is a symbolic link"):
        target_of(tmp_path / "there", "nested/file")


def test_sources_have_folders_of_their_own() -> None:
    one, other = default_folder("s3", "s3://a/models/tiny"), default_folder("s3", "s3://b/models/tiny")
    assert one != other
    assert one.name.startswith("tiny-")
    assert default_folder("https", "https://a/..").name.startswith("model-")
