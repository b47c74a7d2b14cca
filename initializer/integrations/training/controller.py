"""Hearing of, and steering, the controller of Ray Train: the one file that touches its internal callbacks.

Read from Ray 2.60: `api/data_parallel_trainer.py` in `ray/train/v2`, and in its `_internal/execution` `callback.py`,
`controller/controller.py`, `checkpoint/report_handler.py` and `worker_group/poll.py`. `RunConfig(callbacks=…)` takes
internal callbacks as well as the public `UserCallback`; a class that is both is treated as the latter alone. What a hook
raises ends the run, and is not retried.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from typing import Any

from ray import cloudpickle
from ray.train.v2._internal.execution.callback import ReportCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.checkpoint.report_handler import ReportCallbackHandler

from phasebus.initializer.integrations.training import line
from phasebus.initializer.integrations.training.line import AnswerError, Line, LineLostError


def watch(trainer: Any, line_to_here: Line) -> None:
    """Have the controller of `trainer` ask over `line_to_here`.

    It is given that last: the configuration that a trainer is made with goes on to the workers. What it is given brings
    its own code along, for importing phasebus takes the better part of a second, and there may be none to import.
    """
    for module in (sys.modules[__name__], line):
        cloudpickle.register_pickle_by_value(module)
    run = trainer.run_config
    trainer.run_config = dataclasses.replace(run, callbacks=[*(run.callbacks or ()), ControllerWatch(line_to_here)])


class ControllerWatch(WorkerGroupCallback, ReportCallback):  # type: ignore[misc]  # Ray's are untyped
    """Asks the process that trains what its callbacks want.

    Args:
        line: The line to it.
    """

    def __init__(self, line: Line) -> None:
        self._line = line

    def before_worker_group_start(self, worker_group_context: Any) -> None:
        """Tell that workers are going to be started."""
        self._line.ask("pre_worker_group", workers=worker_group_context.num_workers)

    def after_worker_group_start(self, worker_group: Any) -> None:
        """Tell that the workers are ready."""
        for callback in worker_group._callbacks:  # noqa: SLF001
            if isinstance(callback, ReportCallbackHandler):
                callbacks = callback._report_callbacks  # noqa: SLF001
                callbacks.remove(self)
                callbacks.insert(0, self)  # before Ray stores the report: what callbacks add is stored with it
        try:
            self._line.ask("post_worker_group")
        except Exception:
            worker_group._clear_state()  # noqa: SLF001  # an error here has Ray end only workers that have not started
            raise

    def after_report(self, training_report: Any, metrics: list[dict[str, Any]]) -> None:
        """Tell of a report; take what callbacks have made of it."""
        checkpoint = training_report.checkpoint
        kept = self._line.ask(
            "reported", metrics=metrics[0], checkpoint=None if checkpoint is None else checkpoint.path
        )
        metrics[0].clear()  # in place: it is the report's own
        metrics[0].update(kept)

    def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
        """Tell of workers that have failed; if a callback has asked for it, have the run end as one that is finished."""
        errors = {rank: f"{type(error).__name__}: {error}" for rank, error in worker_group_status.errors.items()}
        if self._line.ask("polled", errors=errors) and not errors:
            for status in worker_group_status.worker_statuses.values():
                status.running = False

    def before_worker_group_shutdown(self, worker_group: Any) -> None:
        """Tell that the workers are going to be ended; an error of ours would leave them running."""
        with contextlib.suppress(AnswerError, LineLostError):
            self._line.ask("worker_group_ended")
