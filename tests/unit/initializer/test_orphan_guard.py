"""The end of a command whose starter has ended."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from phasebus.initializer.node import orphan_guard
from phasebus.initializer.node.orphan_guard import OrphanGuard

_SECONDS = 60.0


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphan_guard, "_SCRIPT", orphan_guard._SCRIPT.replace("sleep 1", "sleep 0.005"))


@pytest.mark.parametrize(
    ("script", "code"),
    [("trap 'exit 3' TERM; echo; while :; do sleep 0.01; done", 3), ("trap '' TERM; echo; exec sleep 600", -9)],
)
def test_command_gets_sigterm_and_later_sigkill_at_the_end_of_its_starter(script: str, code: int) -> None:
    with subprocess.Popen(["/bin/sh", "-c", script], stdout=subprocess.PIPE) as command:
        assert command.stdout is not None
        command.stdout.readline()  # it handles the signal from here on
        guard = OrphanGuard(command.pid)
        assert guard._writing is not None
        os.close(guard._writing)  # as at the end of this process
        assert command.wait(_SECONDS) == code
    assert guard._pid is not None
    assert os.waitpid(guard._pid, 0)[0] == guard._pid


def test_command_that_ends_first_ends_its_guard() -> None:
    guard = OrphanGuard(os.getpid())
    guard.release()
    assert guard._pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(guard._pid, 0)


def test_command_runs_where_no_guard_can_be_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(orphan_guard, "_SHELL", str(tmp_path / "no shell"))
    guard = OrphanGuard(os.getpid())
    assert guard._pid is None
    guard.release()


def test_command_runs_where_there_are_too_many_descriptors_for_a_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pipe", refuse)
        guard = OrphanGuard(os.getpid())
    assert guard._pid is None
    guard.release()


def test_guard_gets_no_signal_that_a_terminal_sends_to_the_group_of_the_command() -> None:
    guard = OrphanGuard(os.getpid())
    assert guard._pid is not None
    group = os.getpgid(guard._pid)
    guard.release()
    assert group == guard._pid


def test_guard_is_not_ended_by_signals_of_a_service_manager() -> None:
    with subprocess.Popen(["sleep", "600"]) as command:
        guard = OrphanGuard(command.pid)
        assert guard._pid is not None
        started = Path(f"/proc/{guard._pid}/status")
        ignored = 0
        while not ignored & 1 << signal.SIGTERM - 1:  # it has executed its first line
            ignored = int(started.read_text().partition("SigIgn:")[2].split()[0], 16)
        os.kill(guard._pid, signal.SIGTERM)
        assert guard._writing is not None
        os.close(guard._writing)
        assert command.wait(_SECONDS) == -signal.SIGTERM
        os.waitpid(guard._pid, 0)
