"""`phasebus run --download` as a process of its own, around commands that are no engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.command import Command, phases

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


def test_a_download_that_fails_ends_the_command(run: Start) -> None:
    command = run("sleep", "1000", options=("--download", "/not/there"))
    assert command.wait() == 1
    assert "/not/there" in command.stderr
    assert command.left_behind() == []
    assert phases(command.journal())["download"] == "failed"
