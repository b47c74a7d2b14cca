"""Sending a journal to a hub, without Ray."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from phasebus.initializer.cluster.hub.sender import JournalSender
from phasebus.initializer.cluster.hub.start import forwarding_journal
from tests.support.journal_lines import begun, ended
from tests.support.waiting import wait_until

START = begun("a" * 16, "node", "node-0") + begun("b" * 16, "phase", "download")
END = ended("b" * 16, "phase", "download") + ended("a" * 16, "node", "node-0")


class Hub:
    """A hub that may be unreachable, and may lose what it received."""

    def __init__(self) -> None:
        self.received = b""
        self.reachable = True
        self.calls = 0

    def send(self, offset: int, lines: bytes) -> int:
        self.calls += 1
        if not self.reachable:
            raise ConnectionError("unreachable\nand more lines")
        if offset == len(self.received):
            self.received += lines
        return len(self.received)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "run.jsonl"
    path.write_bytes(START)
    return path


@pytest.fixture
def hub(journal: Path) -> Iterator[Hub]:
    hub = Hub()
    sender = JournalSender(journal, hub.send, poll_seconds=0.01, keep_alive_seconds=0.05)
    sender.start()
    yield hub
    sender.close()


def test_a_growing_journal_arrives_in_whole_lines(journal: Path, hub: Hub) -> None:
    wait_until(lambda: hub.received == START, "the first lines have arrived")
    with journal.open("ab") as file:
        file.write(END + b'{"half')
        file.flush()
        wait_until(lambda: hub.received == START + END, "the next ones have arrived")


def test_a_hub_that_lost_everything_receives_everything_again(journal: Path, hub: Hub) -> None:
    wait_until(lambda: hub.received == START, "the first lines have arrived")
    hub.received = b""
    wait_until(lambda: hub.received == START, "they have arrived again")


def test_an_unreachable_hub_is_logged_once_and_receives_the_rest_later(
    journal: Path, hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    wait_until(lambda: hub.received == START, "the first lines have arrived")
    hub.reachable = False
    hub.received = b""
    calls = hub.calls
    with journal.open("ab") as file:
        file.write(END)
    wait_until(lambda: hub.calls > calls + 3, "it was tried again")
    hub.reachable = True
    wait_until(lambda: hub.received == START + END, "everything has arrived")
    assert caplog.text.count("cannot reach the hub: unreachable. The start goes on") == 1


def test_closing_sends_the_last_lines(journal: Path) -> None:
    hub = Hub()
    sender = JournalSender(journal, hub.send, poll_seconds=60)
    sender.start()
    wait_until(lambda: hub.received == START, "the first lines have arrived")
    with journal.open("ab") as file:
        file.write(END)
    sender.close(60)
    assert hub.received == START + END


@pytest.mark.anyio
async def test_a_journal_that_could_not_be_created_is_not_forwarded(tmp_path: Path) -> None:
    threads = threading.active_count()
    async with forwarding_journal(object(), "node-0", tmp_path / "missing.jsonl"):
        assert threading.active_count() == threads
