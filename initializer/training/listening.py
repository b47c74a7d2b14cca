"""The process that trains, listening to its controller."""

from __future__ import annotations

import contextlib
import secrets
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextvars import copy_context
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

from phasebus.bus import Context, PhaseEvent, Step, StepFailed, StepFinished, StepStarted, Threads
from phasebus.initializer.training.config import TrainingConfig
from phasebus.initializer.training.events import (
    CHECKPOINT,
    METRICS,
    REPORT,
    STOP,
    WORKER_ERRORS,
    WORKER_GROUP,
    PostWorkerGroup,
    PreWorkerGroup,
    Reported,
    WorkersFailed,
)


class Listening:
    """Answers the controller: publishes what it tells, and says what the callbacks made of it.

    Args:
        threads: The way to the bus.
        config: The run's configuration.
        context: What the callbacks share.
        parent: The id of the run's step.

    Attributes:
        key: What the controller has to know.
        failures: The errors of callbacks, as they were raised.
    """

    def __init__(self, threads: Threads, config: TrainingConfig, context: Context, parent: str) -> None:
        self._threads = threads
        self._config = config
        self._context = context
        self._parent = parent
        self._group: Step | None = None
        self._groups = self._reports = 0
        self._came = False
        self.key = secrets.token_bytes(32)
        self.failures: list[Exception] = []

    @contextlib.contextmanager
    def listen(self) -> Iterator[str]:
        """Listen, in a thread, on the socket whose address this gives."""
        with tempfile.TemporaryDirectory(prefix="phasebus-") as folder:
            address = str(Path(folder) / "training")
            with Listener(address, "AF_UNIX", authkey=self.key) as listener:
                thread = threading.Thread(
                    target=copy_context().run, args=(self._serve, listener), name="phasebus training", daemon=True
                )
                thread.start()
                try:
                    yield address
                finally:
                    if not self._came:
                        _knock(address)

    def close(self, error: BaseException | None) -> None:
        """Tell the end of what still runs."""
        if self._group is not None:
            step, self._group = self._group, None
            if error is None:
                self._threads.publish(step.event(StepFinished, seconds=step.seconds))
            else:
                self._threads.publish(step.event(StepFailed, seconds=step.seconds, outcome="failed", error=error))

    def _serve(self, listener: Listener) -> None:
        with contextlib.suppress(OSError, EOFError), listener.accept() as connection:
            self._came = True
            while True:  # until the controller is gone, which may be after the run has returned
                self._answer(connection)

    def _answer(self, connection: Connection[Any, Any]) -> None:
        moment, told = connection.recv()
        try:
            answer = getattr(self, f"_{moment}")(**told)
        except Exception as error:  # noqa: BLE001  # raised again where the run was started
            self.failures.append(error)
            connection.send(("\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())]), None))
        else:
            connection.send((None, answer))

    def _pre_worker_group(self, workers: int) -> None:
        self.close(None)
        self._groups += 1
        self._group = step = Step(self._threads.bus, WORKER_GROUP, self._config.name, self._parent)
        step.attributes.update(workers=workers, attempt=self._groups)
        self._threads.publish(step.event(StepStarted))
        self._publish(PreWorkerGroup)

    def _post_worker_group(self) -> None:
        self._publish(PostWorkerGroup)

    def _worker_group_ended(self) -> None:
        self.close(self.failures[0] if self.failures else None)

    def _reported(self, metrics: dict[str, Any], checkpoint: str | None) -> dict[str, Any]:
        self._reports += 1
        step = Step(self._threads.bus, REPORT, self._config.name, None if self._group is None else self._group.id)
        step.attributes.update(number=self._reports, checkpoint=checkpoint is not None)
        self._threads.publish(step.event(StepStarted))
        self._context.update({METRICS: metrics, CHECKPOINT: checkpoint})
        try:
            self._publish(Reported)
        except Exception as error:
            self._threads.publish(step.event(StepFailed, seconds=step.seconds, outcome="failed", error=error))
            raise
        self._threads.publish(step.event(StepFinished, seconds=step.seconds))
        return {"metrics": self._context[METRICS], "stop": bool(self._context.get(STOP))}

    def _workers_failed(self, errors: dict[int, str]) -> None:
        self._context[WORKER_ERRORS] = errors
        self._publish(WorkersFailed)
        self.close(WorkersError("; ".join(f"rank {rank}: {error}" for rank, error in errors.items())))

    def _publish(self, event: type[PhaseEvent]) -> None:
        self._threads.publish(event(config=self._config), self._context)


def _knock(address: str) -> None:
    """Wake whoever waits for somebody to come."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as visitor:
        visitor.connect(address)


class WorkersError(Exception):
    """What workers raised, as a step's failure tells it."""
