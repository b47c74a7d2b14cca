"""A command whose engine has died: whether it is ended before it ends by itself."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from phasebus.initializer.engines.vllm.observer import VLLMCommandObserver
from phasebus.initializer.node import command
from phasebus.initializer.node.command import Command, CommandStart
from phasebus.telemetry import StepNotice

pytestmark = pytest.mark.anyio

SERVE = ("vllm", "serve", "m")
FRONT_END = 17


class Child:
    """A command with the process id of `FRONT_END`, which ends at a signal."""

    pid = FRONT_END
    returncode: int | None = None
    stopped = False

    def __init__(self) -> None:
        self._ended = threading.Event()
        self.signals: list[int] = []

    def end(self) -> None:
        self.returncode = 0
        self._ended.set()

    def send_signal(self, number: int) -> None:
        self.signals.append(number)
        self.end()

    async def wait_async(self, seconds: float | None = None) -> bool:
        return await anyio.to_thread.run_sync(self._ended.wait, seconds, abandon_on_cancel=True)


class Relay:
    """Passes on what is published."""

    def listen(self, listener: Any) -> Any:
        self.publish = listener
        return lambda: None


def death(process: str = "EngineCore", parent: int = FRONT_END) -> StepNotice:
    attributes = {"exit_code": -9, "parent_pid": parent}
    fields: Any = {"step": f"{1:016x}", "name": "start_process", "time_ns": 1, "pid": 18, "attributes": attributes}
    return StepNotice(event="exited", process=process, **fields)


@pytest.mark.parametrize(
    ("arguments", "environment", "notice", "ending"),
    [
        (SERVE, {}, death(), FRONT_END),
        (SERVE, {}, death("EngineCore_DP1"), FRONT_END),
        (SERVE, {"VLLM_KEEP_ALIVE_ON_ENGINE_DEATH": "0"}, death(), FRONT_END),
        (SERVE, {"VLLM_KEEP_ALIVE_ON_ENGINE_DEATH": "1"}, death(), None),
        ((*SERVE, "--enable-fault-tolerance"), {}, death(), None),
        (SERVE, {}, death("Worker_TP0"), None),
        (("python", "script.py"), {}, death(), FRONT_END),
    ],
)
def test_front_end_ends_after_its_engine_core_unless_it_is_to_outlive_it(
    arguments: Any, environment: Any, notice: StepNotice, ending: int | None
) -> None:
    assert VLLMCommandObserver(arguments).process_ending_after(notice, environment) == ending


async def failure(notice: StepNotice | None, *, at_once: bool, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """Return why a command has failed after `notice`, and the signals it got; without one, it ends by itself."""
    monkeypatch.setattr(command, "_ERRORS_SECONDS", 0.0)
    monkeypatch.delenv("VLLM_KEEP_ALIVE_ON_ENGINE_DEATH", raising=False)
    child, relay, cause = Child(), Relay(), None
    telemetry, bus = SimpleNamespace(relay=relay), None
    start = CommandStart(Command(arguments=SERVE), VLLMCommandObserver(SERVE), child, bus, telemetry)  # type: ignore[arg-type]

    async def wait() -> None:
        nonlocal cause
        cause = await start.wait_for_failure(at_once=at_once)

    with start.deaths.recorded():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            if notice is not None:
                await anyio.to_thread.run_sync(relay.publish, notice)
            if notice is None or not at_once or notice.attributes["parent_pid"] != FRONT_END:
                child.end()
    return cause, child.signals


async def test_a_command_is_ended_when_its_engine_core_has_died(monkeypatch: pytest.MonkeyPatch) -> None:
    cause, signals = await failure(death(), at_once=True, monkeypatch=monkeypatch)
    assert cause.startswith("the engine has died: EngineCore was ended by SIGKILL")
    assert cause.endswith(", so its command was ended")
    assert signals == [15]


@pytest.mark.parametrize(("notice", "at_once"), [(death(), False), (death(parent=99), True)])
async def test_a_command_ends_by_itself_without_a_restart_or_with_another_engine(
    notice: StepNotice, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cause, signals = await failure(notice, at_once=at_once, monkeypatch=monkeypatch)
    assert cause.startswith("the engine has died: EngineCore was ended by SIGKILL")
    assert "so its command" not in cause
    assert signals == []


async def test_a_command_whose_engine_lives_ends_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await failure(None, at_once=True, monkeypatch=monkeypatch) == (None, [])
