from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from phasebus.telemetry import folders


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user whose home is "/", and an empty folder for temporary files."""
    for name in ("PHASEBUS_STATE_DIR", "PHASEBUS_CACHE_DIR", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_folders_of_a_user_without_a_home_are_temporary(no_home: Path) -> None:
    assert folders.state_folder() == folders.cache_folder() == no_home / f"phasebus-{os.getuid()}"


@pytest.mark.parametrize(
    ("value", "folder"),
    [("~/state", "state"), ("$HOME/state", "state"), ("${HOME}/state", "state"), ("~", ""), (" ~/state\r", "state")],
)
def test_folder_of_a_variable_is_expanded_as_a_shell_does(
    value: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("PHASEBUS_STATE_DIR", "PHASEBUS_CACHE_DIR"):
        monkeypatch.setenv(name, value)
    assert folders.state_folder() == folders.cache_folder() == tmp_path / folder
    assert folders.runtime_folder({"PHASEBUS_RUNTIME_DIR": value}) == tmp_path / folder


def test_folder_of_a_blank_variable_or_an_unknown_user_is_not_expanded(
    no_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHASEBUS_STATE_DIR", " ")
    assert folders.state_folder() == no_home / f"phasebus-{os.getuid()}"
    for value in ("$PHASEBUS_TEST_UNSET/x", "~phasebus-test-no-user/x"):
        monkeypatch.setenv("PHASEBUS_STATE_DIR", value)
        assert folders.state_folder() == Path(value)


def test_folders_of_an_unknown_user_are_temporary(no_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> Path:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr(folders, "user_cache_path", fail)
    assert folders.cache_folder() == no_home / f"phasebus-{os.getuid()}"


def test_a_temporary_folder_of_another_owner_is_not_used(no_home: Path) -> None:
    (no_home / "elsewhere").mkdir()
    (no_home / f"phasebus-{os.getuid()}").symlink_to(no_home / "elsewhere")
    assert folders.state_folder() == no_home / f"phasebus-{os.getuid()}-2"


def test_a_temporary_folder_of_the_user_is_used_again(no_home: Path) -> None:
    (no_home / f"phasebus-{os.getuid()}").mkdir()
    assert folders.state_folder() == no_home / f"phasebus-{os.getuid()}"


def test_folders_are_named_where_nothing_can_be_written(no_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", fail)
    assert folders.state_folder().parent == folders.runtime_folder({}).parent.parent == Path("/tmp")


def test_a_variable_names_the_folder(no_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHASEBUS_CACHE_DIR", "/somewhere")
    assert folders.cache_folder() == Path("/somewhere")


@pytest.mark.parametrize("home", ["/proc/no-home", "/sys/kernel"])
def test_folders_of_a_user_whose_home_cannot_be_written_are_temporary(
    home: str, no_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(os, "access", lambda path, mode: not Path(path).is_relative_to(Path(home).parent))
    assert folders.state_folder() == folders.cache_folder() == no_home / f"phasebus-{os.getuid()}"


def test_a_folder_that_can_be_written_in_a_home_that_cannot_is_used(
    no_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = no_home / "home"
    (home / ".cache").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(os, "access", lambda path, mode: path != home)
    assert folders.cache_folder() == home / ".cache" / "phasebus"
    assert folders.state_folder() == no_home / f"phasebus-{os.getuid()}"


def test_a_home_that_does_not_exist_yet_is_used(no_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(no_home / "new"))
    assert folders.cache_folder() == no_home / "new" / ".cache" / "phasebus"
