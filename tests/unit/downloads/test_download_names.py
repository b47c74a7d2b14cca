"""Everything that a source names is validated: no name leads out of the destination."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasebus.initializer.downloads.checks import Digest
from phasebus.initializer.downloads.errors import DownloadError
from phasebus.initializer.downloads.names import check_listing, is_remote_name, remote_parts, target_path
from phasebus.initializer.downloads.protocol import Listing, RemoteFile

PARTS = st.one_of(
    st.sampled_from(
        ["..", ".", "", "a", "b c", "~", "C:", ".phasebus", ".PHASEBUS", "\\", "..\\", "\0", "a" * 300, "ü"]
    ),
    st.text(max_size=8),
)


@given(st.lists(PARTS, max_size=5).map("/".join))
def test_target_is_below_the_folder_or_rejected(name: str) -> None:
    folder = Path("/some/where")
    try:
        target = target_path(folder, name)
    except DownloadError:
        return
    assert os.path.normpath(target) == str(target)
    assert folder in target.parents
    assert ".phasebus" not in [part.casefold() for part in target.relative_to(folder).parts[:1]]
    assert is_remote_name(name)


@pytest.mark.parametrize("name", ["a", "a/b", "a..b", "..a", "a b/c", "ünï/çødé", "ab:c", "nested/.phasebus"])
def test_ordinary_names_are_accepted(name: str, tmp_path: Path) -> None:
    assert target_path(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../a", r"'\.\.'"),
        ("/etc/passwd", "absolute"),
        ("C:/windows", "absolute"),
        ("a\\b", "backslash"),
        ("a\0b", "control character"),
        ("a\nb", "control character"),
        ("a//b", "empty part"),
        ("", "empty part"),
        ("a" * 256, "more than 255 bytes"),
        ("a/" * 2000 + "a", "more than 2048 characters"),
        ("\ud800", "not valid Unicode"),
    ],
)
def test_rejection_names_the_reason(name: str, message: str) -> None:
    with pytest.raises(DownloadError, match=f"names a file .* which .*{message}"):
        remote_parts(name, "a file")


def test_own_state_folder_is_rejected_as_a_name(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="own state"):
        target_path(tmp_path, ".phasebus/lock")


def test_symbolic_link_in_a_target_path_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "nested").symlink_to(tmp_path / "outside")
    with pytest.raises(DownloadError, match="is a symbolic link"):
        target_path(tmp_path / "there", "nested/file")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": -1}, "the size '-1'"),
        ({"size": 2**70}, "the size"),
        ({"size": True}, "the size 'True'"),
        ({"size": "12"}, "the size '12'"),
        ({"digest": Digest("sha256", "../../x")}, "the sha256 digest '../../x'"),
        ({"digest": Digest("sha256", "a" * 40)}, "the sha256 digest"),
        ({"digest": Digest("md5", "a" * 32)}, "the md5 digest"),  # type: ignore[arg-type]
        ({"validator": "a\r\nX-Header: b"}, "the validator"),
        ({"validator": 7}, "the validator '7'"),
    ],
)
def test_impossible_value_in_a_listing_is_rejected(values: dict[str, Any], message: str) -> None:
    with pytest.raises(DownloadError, match=f"s3://b/m lists 'a' with {message}"):
        check_listing(Listing(files=(RemoteFile(name="a", **values),)), "s3://b/m")


def test_name_that_is_listed_twice_is_rejected() -> None:
    with pytest.raises(DownloadError, match="lists 'a' more than once"):
        check_listing(Listing(files=(RemoteFile(name="a"), RemoteFile(name="a"))), "s3://b/m")


def test_revision_that_is_a_path_is_rejected() -> None:
    with pytest.raises(DownloadError, match=r"names the revision '\.\./x'"):
        check_listing(Listing(files=(), revision="../x"), "s3://b/m")
