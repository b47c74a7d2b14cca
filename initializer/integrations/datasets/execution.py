"""The callback inside Ray Data's executions; the only file that uses Ray Data's `ExecutionCallback` interface.

Read from Ray 2.60 (`ray/data/_internal/execution/execution_callback.py`, `streaming_executor.py`). This file uses
`_topology` and `get_stats()` of the executor, and `name`, `has_completed()`, `num_output_rows_total()` and
`metrics.row_outputs_taken` of an operator. Ray calls each registered object without arguments and expects an object with
four hooks; its documentation names classes, but any callable works.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio

from phasebus.bus import Context, PhasebusError, Step, StepFailed, StepFinished, StepProgress, StepStarted, Threads
from phasebus.initializer.integrations.datasets.config import DatasetConfig
from phasebus.initializer.integrations.datasets.events import (
    EXECUTION,
    OPERATOR,
    OPERATORS,
    STATS,
    PostExecution,
    PreExecution,
)
from phasebus.initializer.pipeline.callbacks import Spelling
from phasebus.initializer.pipeline.control_flow import error_for


class LocalCallbacks(list[Callable[[], Any]]):
    """The callbacks registered with Ray in this process. `deepcopy` returns the same list; a pickle omits our callbacks."""

    def __deepcopy__(self, memo: object) -> LocalCallbacks:
        return self

    def __reduce__(self) -> tuple[type[list[Any]], tuple[list[Any]]]:
        return list, ([each for each in self if getattr(each, "func", None) is not ExecutionObserver],)


@dataclass
class DatasetRun:
    """The shared state of the executions of one run.

    Attributes:
        threads: Publishes on the bus from other threads: Ray calls the hooks in threads of its own.
        config: The configuration of the pipeline.
        context: The context of the callbacks.
        step: The id of the step that the executions belong to.
        spelling: Checks the keys that callbacks write.
        failure: The first error of a callback, as it was raised; None if none failed.
        executions: The number of executions that have begun.
        running: The executions that have not ended.
        ended: Whether the pipeline has returned: executions that still run have no further phases.
        cancelled: Set when the run is cancelled.
    """

    threads: Threads
    config: DatasetConfig
    context: Context
    step: str
    spelling: Spelling
    failure: Exception | None = None
    executions: int = 0
    running: set[ExecutionObserver] = field(default_factory=set)
    ended: bool = False
    cancelled: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    async def notice_cancellation(self) -> None:
        """Wait until cancelled, then set `cancelled`."""
        try:
            await anyio.sleep_forever()
        finally:
            self.cancelled.set()

    def enter(self, observer: ExecutionObserver) -> bool:
        """Return whether a new execution has phases: not after the pipeline has returned."""
        with self._lock:
            if not self.ended:
                self.executions += 1
                self.running.add(observer)
            return not self.ended

    def leave(self) -> None:
        """End the phases of the executions that still run, and ignore later ones."""
        with self._lock:
            self.ended = True
            left = list(self.running)
        for observer in left:
            observer.leave()

    def publish(self, event: object, context: Context | None = None) -> None:
        """Publish from one of Ray's threads.

        Raises:
            ExecutionEndedError: A callback raised. `failure` keeps its error, because Ray would change the error's cause.
        """
        try:
            self.threads.publish(event, context)
            self.spelling.check(self.context)
        except (Exception, SystemExit) as error:  # noqa: BLE001  # the run raises it
            failure = error_for(error) if isinstance(error, SystemExit) else error
            self.failure = self.failure or failure
            raise ExecutionEndedError(f"a callback has failed: {type(failure).__name__}: {failure}", failure) from None


class ExecutionEndedError(PhasebusError):
    """Raised in an execution to end it.

    Args:
        message: The reason.
        failure: The error of a callback; None if the run has been cancelled.
    """

    def __init__(self, message: str, failure: Exception | None = None) -> None:
        super().__init__(message)
        self.failure = failure


class ExecutionLeftError(PhasebusError):
    """Recorded as the error of an execution that still runs when its pipeline returns. It continues without phases."""


class ExecutionObserver:
    """Publishes the events of one execution. Ray may call it in several threads; calls in the bus's thread are ignored.

    Args:
        run: The state of the run.
    """

    def __init__(self, run: DatasetRun) -> None:
        self._run = run
        self._lock = threading.RLock()
        self._step = Step(run.threads.bus, EXECUTION, run.config.name, run.step)
        self._operators: dict[Any, Step] = {}
        self._last_progress = 0.0

    def before_execution_starts(self, executor: Any) -> None:
        """Publish the start and the plan. An error in a callback prevents the execution."""
        if self._run.threads.is_here:
            return
        with self._lock:
            if not self._run.enter(self):
                return
            names = tuple(str(operator.name) for operator in executor._topology)  # noqa: SLF001
            self._step.attributes["operators"] = len(names)
            try:
                self._run.publish(self._step.event(StepStarted))
                # Without the history, which would grow with every execution.
                self._run.context.data[OPERATORS] = list(names)
                self._run.publish(PreExecution(config=self._run.config, operators=names), self._run.context)
                for operator, name in zip(executor._topology, names, strict=True):  # noqa: SLF001
                    self._operators[operator] = step = Step(self._run.threads.bus, OPERATOR, name, self._step.id)
                    self._run.publish(step.event(StepStarted))
            except Exception as error:
                self._end(error)
                raise

    def on_execution_step(self, executor: Any) -> None:
        """Publish the operators' progress at intervals; end a cancelled execution."""
        with self._running() as running:
            if not running:
                return
            if self._run.cancelled.is_set():
                raise ExecutionEndedError(f"the run of {self._run.config.name!r} has been cancelled")
            now = time.monotonic()
            if now - self._last_progress < self._run.config.progress_seconds:
                return
            self._last_progress = now
            for operator, step in list(self._operators.items()):
                if operator.has_completed():
                    self._finish(operator)
                else:
                    rows, total = operator.metrics.row_outputs_taken, operator.num_output_rows_total()
                    self._run.publish(step.event(StepProgress, done=rows, total=total, unit="{row}"))

    def after_execution_succeeds(self, executor: Any) -> None:
        """Publish the end of a successful execution."""
        with self._running() as running:
            if not running:
                return
            stats = executor.get_stats().to_summary().to_string(include_parent=False)
            try:
                for operator in list(self._operators):
                    self._finish(operator)
                self._run.context.data[STATS] = stats
                self._run.publish(PostExecution(config=self._run.config, stats=stats), self._run.context)
            except Exception as error:
                self._end(error)
                raise
            self._end(None)

    def after_execution_fails(self, executor: Any, error: Exception) -> None:
        """Publish the end of a failed execution."""
        with self._running() as running:
            if running:
                self._end(error)

    def leave(self) -> None:
        """End the phases of the execution, because the pipeline has returned."""
        with self._running() as running:
            if running:
                self._end(
                    ExecutionLeftError("the pipeline returned before this execution ended; it continues without phases")
                )

    @contextmanager
    def _running(self) -> Iterator[bool]:
        """Yield whether the execution has phases; the answer stays valid inside the block."""
        if self._run.threads.is_here:  # taking the lock here could deadlock: its holder may wait for this thread
            yield False
            return
        with self._lock:
            yield self in self._run.running

    def _finish(self, operator: Any) -> None:
        step = self._operators.pop(operator)
        step.attributes["rows"] = int(operator.metrics.row_outputs_taken)
        self._run.publish(step.event(StepFinished, seconds=step.seconds))

    def _end(self, error: Exception | None) -> None:
        self._run.running.discard(self)
        if error is None:
            self._run.publish(self._step.event(StepFinished, seconds=self._step.seconds))
            return
        if isinstance(error, ExecutionEndedError):
            error = error.failure or error
        ended = self._run.cancelled.is_set() or isinstance(error, ExecutionLeftError)
        outcome = "cancelled" if ended else "failed"
        for step in (*self._operators.values(), self._step):
            self._run.publish(step.event(StepFailed, seconds=step.seconds, outcome=outcome, error=error))
        self._operators.clear()
