"""Hearing of, and steering, the controller of Ray Train: the one file that touches its internal callbacks.

Read from Ray 2.60 (`ray/train/v2/_internal/execution/callback.py`, `controller/controller.py`,
`checkpoint/report_handler.py`, `worker_group/poll.py`). The controller is an actor on the node of the process that
trains, so it asks that process over a Unix socket: 0.1 ms, and no actor of our own. `RunConfig(callbacks=…)` takes
internal callbacks as well as the public `UserCallback`; a class that is both is treated as the latter alone.
"""

from __future__ import annotations

from multiprocessing.connection import Client, Connection
from typing import Any

from ray.train.v2._internal.execution.callback import ControllerCallback, ReportCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.checkpoint.report_handler import ReportCallbackHandler


class CallbackError(Exception):
    """Raised in the controller when a callback failed in the process that trains."""


class ControllerWatch(ControllerCallback, WorkerGroupCallback, ReportCallback):  # type: ignore[misc]  # Ray's are untyped
    """Asks the process that trains what its callbacks want.

    Args:
        address: The socket it listens on.
        key: What it knows us by.
    """

    def __init__(self, address: str, key: bytes) -> None:
        self._address = address
        self._key = key
        self._connection: Connection[Any, Any] | None = None
        self._stop = False

    def before_worker_group_start(self, worker_group_context: Any) -> None:
        """Tell that workers are going to be started."""
        self._ask("pre_worker_group", workers=worker_group_context.num_workers)

    def after_worker_group_start(self, worker_group: Any) -> None:
        """Tell that the workers are ready."""
        for callback in worker_group._callbacks:  # noqa: SLF001
            if isinstance(callback, ReportCallbackHandler):
                callbacks = callback._report_callbacks  # noqa: SLF001
                callbacks.remove(self)
                callbacks.insert(0, self)  # before Ray stores the report: what callbacks add is stored with it
        self._ask("post_worker_group")

    def before_worker_group_shutdown(self, worker_group: Any) -> None:
        """Tell that the workers are going to be ended."""
        self._ask("worker_group_ended")

    def after_report(self, training_report: Any, metrics: list[dict[str, Any]]) -> None:
        """Tell of a report; take what callbacks have added to it."""
        checkpoint = training_report.checkpoint
        answer = self._ask("reported", metrics=metrics[0], checkpoint=None if checkpoint is None else checkpoint.path)
        metrics[0].clear()
        metrics[0].update(answer["metrics"])
        self._stop = self._stop or answer["stop"]

    def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
        """Tell of workers that have failed; if a callback has asked for it, have the run end as one that is finished."""
        if worker_group_status.errors:
            errors = {rank: f"{type(error).__name__}: {error}" for rank, error in worker_group_status.errors.items()}
            self._ask("workers_failed", errors=errors)
        elif self._stop:
            for status in worker_group_status.worker_statuses.values():
                status.running = False

    def _ask(self, moment: str, **told: Any) -> Any:
        if self._connection is None:
            self._connection = Client(self._address, "AF_UNIX", self._key)
        self._connection.send((moment, told))
        failure, answer = self._connection.recv()
        if failure is not None:
            raise CallbackError(failure)
        return answer
