"""Signals during a start."""

from __future__ import annotations

import asyncio
import signal
import threading

import anyio
import pytest

from phasebus.initializer.cli.signals import until_signalled

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # the command line's


@pytest.fixture
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait no second for the threads of callbacks."""
    monkeypatch.setattr("phasebus.initializer.cli.signals._EXECUTOR_SECONDS", 0.05)


async def test_copy_of_a_signal_for_the_process_group_does_not_end_the_process_at_once(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async def work() -> None:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        await anyio.sleep_forever()

    assert await until_signalled(work, lambda: None) == signal.SIGTERM
    assert capfd.readouterr().err == "phasebus: SIGTERM: stopping; a second signal ends it at once\n"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
async def test_signal_that_this_process_ignores_does_not_stop_the_work(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)  # as nohup, or a script's shell for its background jobs, does
    try:

        async def work() -> None:
            signal.raise_signal(number)

        assert await until_signalled(work, lambda: None) is None
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_the_end_waits_for_no_thread_that_a_callback_has_left_behind(short_wait: None) -> None:
    released = threading.Event()

    async def work() -> None:
        loop = asyncio.get_running_loop()
        loop.run_in_executor(None, released.wait)
        assert await asyncio.to_thread(lambda: 1) == 1

    try:
        assert anyio.run(until_signalled, work, lambda: None) is None
        assert not released.is_set()
    finally:
        released.set()
