"""Hearing of the executions of Ray Data: the one file that touches its `ExecutionCallback`.

Read from Ray 2.60 (`ray/data/_internal/execution/execution_callback.py`, `streaming_executor.py`). Of the executor it
takes `_topology` and `get_stats()`; of an operator `name`, `has_completed()`, `num_output_rows_total()` and
`metrics.row_outputs_taken`. Ray calls what is registered without arguments, for an object with four hooks; it says that
these are classes, and any callable will do.
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


class StaysHere(list[Callable[[], Any]]):
    """What is registered with Ray in this process: it is copied as itself, and our part of it travels to no other."""

    def __deepcopy__(self, memo: object) -> StaysHere:
        return self

    def __reduce__(self) -> tuple[type[list[Any]], tuple[list[Any]]]:
        return list, ([each for each in self if getattr(each, "func", None) is not ExecutionWatch],)


@dataclass
class DatasetRun:
    """What the executions of one run share.

    Attributes:
        threads: The way to the bus: Ray calls the hooks in threads of its own.
        config: The configuration of the pipeline.
        context: What the callbacks share.
        step: The id of the step that the executions belong to.
        spelling: Looks at the keys that callbacks have written.
        failure: The first error of a callback, as it was raised; None so far.
        executions: How many have begun.
        running: Those that have not ended.
        ended: Whether the pipeline has returned: what it left behind has no phases any more.
        cancelled: Set when the run is cancelled.
    """

    threads: Threads
    config: DatasetConfig
    context: Context
    step: str
    spelling: Spelling
    failure: Exception | None = None
    executions: int = 0
    running: set[ExecutionWatch] = field(default_factory=set)
    ended: bool = False
    cancelled: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    async def notice_cancellation(self) -> None:
        """Wait, and set `cancelled` when this is cancelled."""
        try:
            await anyio.sleep_forever()
        finally:
            self.cancelled.set()

    def enter(self, watch: ExecutionWatch) -> bool:
        """Return whether an execution that begins has phases: it has not once the pipeline has returned."""
        with self._lock:
            if not self.ended:
                self.executions += 1
                self.running.add(watch)
            return not self.ended

    def leave(self) -> None:
        """Tell that executions which have not ended are left to themselves; hear no more of any."""
        with self._lock:
            self.ended = True
            left = list(self.running)
        for watch in left:
            watch.leave()

    def tell(self, event: object, context: Context | None = None) -> None:
        """Publish, from a thread of Ray's.

        Raises:
            ExecutionEndedError: A callback raised. What it raised is kept, as Ray would give it another cause.
        """
        try:
            self.threads.publish(event, context)
            self.spelling.check(self.context)
        except (Exception, SystemExit) as error:  # noqa: BLE001  # what it was is kept, and raised by the run
            failure = error_for(error) if isinstance(error, SystemExit) else error
            self.failure = self.failure or failure
            raise ExecutionEndedError(f"a callback has failed: {type(failure).__name__}: {failure}", failure) from None


class ExecutionEndedError(PhasebusError):
    """Raised in an execution that is not to go on.

    Args:
        message: Why.
        failure: What a callback raised; None if the run has been cancelled.
    """

    def __init__(self, message: str, failure: Exception | None = None) -> None:
        super().__init__(message)
        self.failure = failure


class ExecutionLeftError(PhasebusError):
    """How the step of an execution ends that the pipeline has returned before: it may go on, and without phases."""


class ExecutionWatch:
    """Tells a bus of one execution. Ray may call it in several threads; in the bus's own there is no telling.

    Args:
        run: The run it is of.
    """

    def __init__(self, run: DatasetRun) -> None:
        self._run = run
        self._lock = threading.RLock()
        self._step = Step(run.threads.bus, EXECUTION, run.config.name, run.step)
        self._operators: dict[Any, Step] = {}
        self._told = 0.0

    def before_execution_starts(self, executor: Any) -> None:
        """Tell of the plan; an error of a callback prevents the execution."""
        if self._run.threads.is_here:
            return
        with self._lock:
            if not self._run.enter(self):
                return
            names = tuple(str(operator.name) for operator in executor._topology)  # noqa: SLF001
            self._step.attributes["operators"] = len(names)
            try:
                self._run.tell(self._step.event(StepStarted))
                self._run.context.data[OPERATORS] = list(
                    names
                )  # in no history, which would keep those of every execution
                self._run.tell(PreExecution(config=self._run.config, operators=names), self._run.context)
                for operator, name in zip(executor._topology, names, strict=True):  # noqa: SLF001
                    self._operators[operator] = step = Step(self._run.threads.bus, OPERATOR, name, self._step.id)
                    self._run.tell(step.event(StepStarted))
            except Exception as error:
                self._end(error)
                raise

    def on_execution_step(self, executor: Any) -> None:
        """Tell how far the operators are, now and then; end what has been cancelled."""
        with self._running() as running:
            if not running:
                return
            if self._run.cancelled.is_set():
                raise ExecutionEndedError(f"the run of {self._run.config.name!r} has been cancelled")
            now = time.monotonic()
            if now - self._told < self._run.config.progress_seconds:
                return
            self._told = now
            for operator, step in list(self._operators.items()):
                if operator.has_completed():
                    self._finish(operator)
                else:
                    rows, total = operator.metrics.row_outputs_taken, operator.num_output_rows_total()
                    self._run.tell(step.event(StepProgress, done=rows, total=total, unit="{row}"))

    def after_execution_succeeds(self, executor: Any) -> None:
        """Tell that it has ended well."""
        with self._running() as running:
            if not running:
                return
            stats = executor.get_stats().to_summary().to_string(include_parent=False)
            try:
                for operator in list(self._operators):
                    self._finish(operator)
                self._run.context.data[STATS] = stats
                self._run.tell(PostExecution(config=self._run.config, stats=stats), self._run.context)
            except Exception as error:
                self._end(error)
                raise
            self._end(None)

    def after_execution_fails(self, executor: Any, error: Exception) -> None:
        """Tell that it has failed."""
        with self._running() as running:
            if running:
                self._end(error)

    def leave(self) -> None:
        """Tell that nothing more will be told."""
        with self._running() as running:
            if running:
                self._end(ExecutionLeftError("the pipeline returned before this had ended; what follows has no phases"))

    @contextmanager
    def _running(self) -> Iterator[bool]:
        """Give whether the execution is one to tell of, and have it stay so meanwhile."""
        if self._run.threads.is_here:  # it could not publish, and whoever holds the lock may wait for this thread
            yield False
            return
        with self._lock:
            yield self in self._run.running

    def _finish(self, operator: Any) -> None:
        step = self._operators.pop(operator)
        step.attributes["rows"] = int(operator.metrics.row_outputs_taken)
        self._run.tell(step.event(StepFinished, seconds=step.seconds))

    def _end(self, error: Exception | None) -> None:
        self._run.running.discard(self)
        if error is None:
            self._run.tell(self._step.event(StepFinished, seconds=self._step.seconds))
            return
        if isinstance(error, ExecutionEndedError):
            error = error.failure or error
        ended = self._run.cancelled.is_set() or isinstance(error, ExecutionLeftError)
        outcome = "cancelled" if ended else "failed"
        for step in (*self._operators.values(), self._step):
            self._run.tell(step.event(StepFailed, seconds=step.seconds, outcome=outcome, error=error))
        self._operators.clear()
