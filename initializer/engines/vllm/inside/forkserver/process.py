"""The multiprocessing context whose processes are forks of the server, or spawned where that is not possible.

Private seam: `Popen` of Python 3.11's multiprocessing (`popen_forkserver`).
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import time
from multiprocessing import context, popen_forkserver, popen_spawn_posix, reduction, spawn, util
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

from phasebus.initializer.engines.vllm.inside.forkserver import channel, server
from phasebus.initializer.engines.vllm.inside.forkserver.caller import Caller
from phasebus.initializer.engines.vllm.inside.forkserver.imported import apply_changes, unknown_changes
from phasebus.initializer.engines.vllm.inside.forkserver.kernels import limit_kernel_search

logger = logging.getLogger("phasebus.engine")

BEGIN_SECONDS = 120.0
"""How long a fork may take until it runs; the server may still be importing."""


class _Popen(popen_forkserver.Popen):
    """A process that is forked from the server.

    Attributes:
        waited_ns: When it was requested and when the server forked it, in nanoseconds since the epoch.
    """

    waited_ns: tuple[int, int]

    def _launch(self, process_obj: Any) -> None:
        pickled = io.BytesIO()
        context.set_spawning_popen(self)
        try:
            reduction.dump(spawn.get_preparation_data(process_obj._name), pickled)  # noqa: SLF001
            reduction.dump(process_obj, pickled)
        finally:
            context.set_spawning_popen(None)
        deadline, requested_ns = time.monotonic() + BEGIN_SECONDS, time.time_ns()
        self.sentinel, data = channel.request_fork(self._fds)  # type: ignore[attr-defined]
        owner = os.dup(data)  # closed when this process ends: the child's sentinel of its parent
        self.finalizer = util.Finalize(self, util.close_fds, (owner, self.sentinel))  # type: ignore[attr-defined]
        self.pid = 0
        try:
            with open(data, "wb", closefd=True):  # noqa: PTH123  # a descriptor
                self.pid = channel.read_number(self.sentinel, deadline)
                self.waited_ns = requested_ns, time.time_ns()
                channel.write_all(data, pickled.getbuffer(), deadline)
            if channel.read_number(self.sentinel, deadline) != channel.BEGUN:
                raise channel.ForkError("the fork has ended before its work")
        except BaseException:
            if self.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
            self.finalizer()
            raise


class ForkedProcess(ForkServerProcess):
    """A process that has the settings of its caller, whether it is forked or spawned."""

    def start(self) -> None:
        """Start it: forked if possible."""
        self._caller = Caller.this_process()
        super().start()

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802  # multiprocessing's own name
        if changed := unknown_changes(os.environ):
            logger.warning("phasebus: %s is spawned, not forked: %s changed", process_obj.name, ", ".join(changed))
        elif channel.is_available():
            try:
                return _Popen(process_obj)
            except channel.ForkError as error:
                channel.use(None)
                logger.warning("phasebus: %s is spawned, not forked: %s", process_obj.name, error)
        return popen_spawn_posix.Popen(process_obj)

    def _bootstrap(self, *args: Any, **kwargs: Any) -> Any:
        if server.confirm_begun():
            self._caller.apply()
            apply_changes(os.environ)
            limit_kernel_search()
        return super()._bootstrap(*args, **kwargs)  # type: ignore[misc]


class ForkContext(ForkServerContext):
    """The context of multiprocessing whose processes are forks of the server."""

    Process = ForkedProcess
