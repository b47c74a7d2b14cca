"""The deaths of an engine's processes: its command ends without an error after one, and some seconds later."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import anyio
import anyio.to_thread

from phasebus.initializer.engines.optional import CommandObserver, EndsAfterDeaths
from phasebus.initializer.engines.protocol import describe_exit
from phasebus.telemetry import Relay, StepNotice


class EngineDeaths:
    """The processes of an engine that have died, as its other processes report it.

    Args:
        relay: Where they report it.
        observer: Observes the engine.
        environment: The environment of its command.
    """

    def __init__(self, relay: Relay, observer: CommandObserver, environment: Mapping[str, str]) -> None:
        self._relay = relay
        self._observer = observer
        self._environment = environment
        self._descriptions: list[str] = []
        self._condition = threading.Condition()
        self._doomed: set[int] = set()

    @property
    def first(self) -> str | None:
        """The process that died first, and how it ended; None if none has died."""
        return self._descriptions[0] if self._descriptions else None

    def clear(self) -> None:
        """Forget the deaths so far: the command is started again."""
        self._descriptions.clear()
        self._doomed.clear()

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Record the deaths while the context lasts."""
        end = self._relay.listen(self._record)
        try:
            yield
        finally:
            end()

    async def wait_until_doomed(self, pid: int) -> None:
        """Wait until a process has died after which the process `pid` of the engine will end as well."""

        def wait() -> None:
            with self._condition:
                self._condition.wait_for(lambda: abandoned.is_set() or pid in self._doomed)

        abandoned = threading.Event()
        try:
            await anyio.to_thread.run_sync(wait, abandon_on_cancel=True)
        finally:
            abandoned.set()
            with self._condition:
                self._condition.notify_all()

    def _record(self, notice: object) -> None:
        if not isinstance(notice, StepNotice) or notice.event != "exited":
            return
        self._descriptions.append(f"{notice.process} {describe_exit(int(str(notice.attributes['exit_code'])))}")
        if isinstance(self._observer, EndsAfterDeaths):
            pid = self._observer.process_ending_after(notice, self._environment)
            if pid is not None:
                with self._condition:
                    self._doomed.add(pid)
                    self._condition.notify_all()
