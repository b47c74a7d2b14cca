"""`phasebus run` as a process of its own, around commands that are no engine."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.command import Command, phases
from tests.support.waiting import wait_until

Start = Callable[..., Command]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Start]:
    started: list[Command] = []

    def start(*command: str, options: tuple[str, ...] = ()) -> Command:
        started.append(Command("run", "--port=0", *options, "--", *command, state=tmp_path))
        return started[-1]

    yield start
    for command in started:
        command.close()


def test_the_exit_code_and_the_output_of_the_command_are_its_own(run: Start) -> None:
    command = run("sh", "-c", "echo out; echo err >&2; exit 3")
    assert command.wait() == 3
    assert command.stdout == "out\n"
    assert command.stderr.startswith("err\n")
    assert "ended with exit code 3 before its engine answered" in command.stderr
    assert phases(command.journal())["engine_init"] == "failed"


def test_a_command_that_is_ended_by_a_signal_ends_as_a_shell_tells_it(run: Start) -> None:
    command = run("sh", "-c", "kill -9 $$")
    assert command.wait() == 128 + signal.SIGKILL
    assert "was ended by SIGKILL" in command.stderr


def test_a_command_that_is_not_there_is_named(run: Start) -> None:
    command = run("no-such-command-anywhere")
    assert command.wait() == 1
    assert "there is no command 'no-such-command-anywhere'" in command.stderr
    assert "Traceback" not in command.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signals_reach_the_command(run: Start, number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    command = run("sh", "-c", f"trap 'echo got {name}; exit 7' {name}; echo up; while :; do sleep 0.1; done")
    wait_until(lambda: "up" in command.stdout, "the command is up")
    command.send(number)
    assert command.wait() == 7
    assert f"got {name}" in command.stdout


def test_a_download_that_fails_ends_the_command(run: Start) -> None:
    command = run("sleep", "1000", options=("--download", "/not/there"))
    assert command.wait() == 1
    assert "/not/there" in command.stderr
    assert command.left_behind() == []
    assert phases(command.journal())["download"] == "failed"
