"""When a command whose engine does not report its readiness is ready: by its server's own /health."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from phasebus.bus import Context
from phasebus.initializer.node import command
from phasebus.initializer.node.command import Command, CommandStart
from phasebus.initializer.node.keys import MODEL, NODE_KEYS
from phasebus.initializer.node.readiness import Intervals, wait_until_ready


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("reported", "running", "probes"), [(False, False, 1), (False, True, 1), (True, False, 1), (True, True, 2)]
)
async def test_one_healthy_probe_suffices_unless_reported_steps_still_run(
    reported: bool, running: bool, probes: int
) -> None:
    """Of several API servers, one may answer while the others are still starting."""
    asked = 0

    class Observer:
        model = "m"

        async def is_healthy(self) -> bool:
            nonlocal asked
            asked += 1
            return True

    def listen(listener: Callable[[object], None]) -> Callable[[], None]:
        if reported:
            listener("a notice")
        return lambda: None

    intervals = Intervals(poll=0.0, probe=0.0, rare_probe=0.0)
    relay: Any = SimpleNamespace(listen=listen)
    child: Any = SimpleNamespace(returncode=None)
    observer: Any = Observer()
    steps: Any = SimpleNamespace(ready=False, running=("a step",) if running else ())
    await wait_until_ready(steps, observer, child, relay, "vllm serve m", intervals)
    assert asked == probes


@pytest.mark.anyio
async def test_a_command_that_has_just_been_started_is_not_probed_at_once() -> None:
    """The first probe imports its HTTP client, for longer than a small model takes to download beside it."""
    child: Any = SimpleNamespace(returncode=None)

    class Observer:
        model = "m"

        async def is_healthy(self) -> bool:
            raise AssertionError("it was probed")

    observer: Any = Observer()
    polls: list[None] = []

    class Steps:
        running = ()

        @property
        def ready(self) -> bool:
            polls.append(None)
            return len(polls) > 100

    relay: Any = SimpleNamespace(listen=lambda _: lambda: None)
    steps: Any = Steps()
    await wait_until_ready(steps, observer, child, relay, "vllm serve m", Intervals(poll=0.0, probe=1000.0))


@pytest.mark.anyio
async def test_a_cancelled_download_does_not_leave_the_command_at_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error beside the download cancels it and leaves the command running."""
    gate: list[str] = []

    async def fetch(*_: Any, **__: Any) -> None:
        await anyio.sleep_forever()

    monkeypatch.setattr(command, "fetch", fetch)
    relay = SimpleNamespace(close_gate=lambda: gate.append("closed"), open_gate=lambda: gate.append("open"))
    telemetry: Any = SimpleNamespace(relay=relay)
    observer: Any = SimpleNamespace(model="m")
    child: Any = None
    bus: Any = None
    start = CommandStart(Command(arguments=["vllm", "serve", "m"], download="m"), observer, child, bus, telemetry)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(start._download, Context({MODEL: "m"}, keys=NODE_KEYS))
        await anyio.wait_all_tasks_blocked()
        assert gate == ["closed"]
        tasks.cancel_scope.cancel()
    assert gate == ["closed", "open"]
