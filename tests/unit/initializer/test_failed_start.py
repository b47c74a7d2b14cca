from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from phasebus.initializer.cli.failures import reported
from phasebus.initializer.cli.linger import LINGER_SECONDS, linger, linger_seconds
from phasebus.initializer.node.termination_message import MOST_BYTES, write_termination_message

KUBERNETES = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}


@pytest.mark.parametrize(
    ("host", "terminal", "environment", "seconds"),
    [
        (None, False, KUBERNETES, 0),
        ("127.0.0.1", False, {}, 0),
        ("localhost", False, {}, 0),
        ("::1", False, {}, 0),
        ("127.0.0.1", True, KUBERNETES, LINGER_SECONDS),
        ("0.0.0.0", True, KUBERNETES, LINGER_SECONDS),
        ("0.0.0.0", False, {}, LINGER_SECONDS),
        ("gpu-7.example", False, {}, LINGER_SECONDS),
        ("0.0.0.0", True, {}, 0),
    ],
)
def test_metrics_linger_by_default_where_a_scraper_is_likely(
    monkeypatch: pytest.MonkeyPatch, host: str | None, terminal: bool, environment: dict[str, str], seconds: float
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert linger_seconds(None, host, environment) == seconds
    assert linger_seconds(0.0, host, environment) == 0
    assert linger_seconds(7.0, host, environment) == (0 if host is None else 7)


def test_the_default_is_long_enough_for_two_scrapes_at_the_usual_interval() -> None:
    assert LINGER_SECONDS >= 2 * 15


@pytest.mark.anyio
async def test_lingering_is_announced_once_and_waits(capsys: pytest.CaptureFixture[str]) -> None:
    waited: list[float] = []

    async def wait(seconds: float) -> None:
        waited.append(seconds)

    await linger(0.0, wait)
    assert (waited, capsys.readouterr().err) == ([], "")
    await linger(35.0, wait)
    assert waited[-1] == 35.0
    assert capsys.readouterr().err.count("metrics stay up for 35 s") == 1


def written(path: Path, reason: str) -> bytes:
    write_termination_message(reason, {"PHASEBUS_TERMINATION_LOG": str(path)})
    return path.read_bytes()


def test_a_termination_message_is_one_line_of_at_most_4096_bytes(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.touch()
    text = written(path, f"no\nlicence: {'ü' * 4000}")
    assert text.startswith(b"no licence: ")
    assert len(text) <= MOST_BYTES == 4096
    assert text.decode().endswith("ü…")


def test_a_message_that_the_container_wrote_itself_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("the command's own")
    assert written(path, "ours") == b"the command's own"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.touch()
    (tmp_path / "log").symlink_to(target)
    assert written(tmp_path / "log", "reason") == b""


def test_nothing_is_created_and_nothing_fails_where_a_message_cannot_be_written(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in ("missing", "fifo", "", "missing/log", "nul\0l"):
        write_termination_message("reason", {"PHASEBUS_TERMINATION_LOG": f"{tmp_path}/{name}"})
    assert [each.name for each in tmp_path.iterdir()] == ["fifo"]


def test_outside_of_kubernetes_no_file_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []

    def refuse(path: object, _flags: int) -> int:
        opened.append(path)
        raise PermissionError

    monkeypatch.setattr(os, "open", refuse)
    write_termination_message("reason", {})
    assert opened == []
    write_termination_message("reason", KUBERNETES)
    assert opened == ["/dev/termination-log"]


def test_the_termination_message_of_a_command_has_the_notes_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    path.touch()
    monkeypatch.setenv("PHASEBUS_TERMINATION_LOG", str(path))
    error = ValueError("login failed: Authorization: Bearer abcdefghij0123456789")
    error.add_note("raised by the callback 'login'")
    with pytest.raises(SystemExit), reported(starts=True):
        raise error
    assert path.read_text().startswith("ValueError: login failed: Authorization: ")
    assert "; raised by the callback 'login'; at " in path.read_text()
    assert "abcdefghij" not in path.read_text()


def test_the_error_of_a_command_that_starts_nothing_is_no_termination_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    path.touch()
    monkeypatch.setenv("PHASEBUS_TERMINATION_LOG", str(path))
    with pytest.raises(SystemExit), reported():
        raise ValueError("no journal")
    assert path.read_text() == ""
