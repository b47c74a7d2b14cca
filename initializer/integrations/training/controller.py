"""The callback inside Ray Train's controller; the only file that uses Ray Train's internal callbacks.

Read from Ray 2.60: `api/data_parallel_trainer.py` in `ray/train/v2`, and in its `_internal/execution` `callback.py`,
`controller/controller.py`, `checkpoint/report_handler.py` and `worker_group/poll.py`. `RunConfig(callbacks=…)` takes
internal callbacks as well as the public `UserCallback`; Ray treats a class that inherits both as a `UserCallback` only.
An error that a hook raises ends the run, without a retry.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from typing import Any

from ray import cloudpickle
from ray.train.v2._internal.execution.callback import ReportCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.checkpoint.report_handler import ReportCallbackHandler

from phasebus.initializer.integrations.training import rpc
from phasebus.initializer.integrations.training.rpc import RpcClient, RpcConnectionError, RpcError


def attach(trainer: Any, client: RpcClient) -> None:
    """Add a callback to the controller of `trainer` that calls this process through `client`.

    It is added after the trainer is built, because a trainer passes its initial configuration to the workers. The callback is
    pickled by value, because the controller's environment may lack phasebus, and importing it takes most of a second.
    """
    for module in (sys.modules[__name__], rpc):
        cloudpickle.register_pickle_by_value(module)
    run = trainer.run_config
    trainer.run_config = dataclasses.replace(run, callbacks=[*(run.callbacks or ()), ControllerCallback(client)])


class ControllerCallback(WorkerGroupCallback, ReportCallback):  # type: ignore[misc]  # Ray's are untyped
    """Forwards the controller's hooks to the training driver, and applies the changes of its callbacks.

    Args:
        client: The connection to the driver.
    """

    def __init__(self, client: RpcClient) -> None:
        self._client = client

    def before_worker_group_start(self, worker_group_context: Any) -> None:
        """Report that workers are about to start."""
        self._client.call("pre_worker_group", workers=worker_group_context.num_workers)

    def after_worker_group_start(self, worker_group: Any) -> None:
        """Report that the workers are ready."""
        for callback in worker_group._callbacks:  # noqa: SLF001
            if isinstance(callback, ReportCallbackHandler):
                callbacks = callback._report_callbacks  # noqa: SLF001
                callbacks.remove(self)
                callbacks.insert(0, self)  # first, so that Ray stores the changed report
        try:
            self._client.call("post_worker_group")
        except Exception:
            worker_group._clear_state()  # noqa: SLF001  # otherwise the workers keep running: after this error, Ray ends only workers that have not started
            raise

    def after_report(self, training_report: Any, metrics: list[dict[str, Any]]) -> None:
        """Forward a report and apply the changes of the callbacks."""
        checkpoint = training_report.checkpoint
        kept = self._client.call(
            "reported", metrics=metrics[0], checkpoint=None if checkpoint is None else checkpoint.path
        )
        metrics[0].clear()  # in place: Ray stores this dict
        metrics[0].update(kept)

    def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
        """Report failed workers; if a callback set `STOP`, mark the workers as finished, which ends the run."""
        errors = {rank: f"{type(error).__name__}: {error}" for rank, error in worker_group_status.errors.items()}
        if self._client.call("polled", errors=errors) and not errors:
            for status in worker_group_status.worker_statuses.values():
                status.running = False

    def before_worker_group_shutdown(self, worker_group: Any) -> None:
        """Report that the workers are about to end. No error is raised: it would leave them running."""
        with contextlib.suppress(RpcError, RpcConnectionError):
            self._client.call("worker_group_ended")
