"""The processes an engine starts: the time from a process's birth to its first step is where imports hide.

The parent tells when it begins, for only the parent can; the process itself tells when it is over. Both know the step by
an id made from the trace and the process id.
"""

from __future__ import annotations

import hashlib
import multiprocessing.connection
import os
import threading
import time
from multiprocessing.process import BaseProcess
from typing import Any

import psutil

from phasebus.initializer.engines.vllm.inside.reporter import Reporter

START_PROCESS = "start_process"
"""The name of the step."""

_LOOK_SECONDS = 0.01

_told_already = False


def suppress_own_start_report() -> None:
    """Note that whoever started this process tells of that itself."""
    global _told_already  # noqa: PLW0603  # it is a fact about the process
    _told_already = True


def process_start_step_id(pid: int, trace: str) -> str:
    """Return the id of the step that the start of a process is: 16 hexadecimal digits."""
    return hashlib.sha256(f"{trace}:{pid}".encode()).hexdigest()[:16]


def report_process_start(reporter: Reporter, name: str, ended_ns: int) -> None:
    """Tell that this process has come up: it was born, has imported what it needs, and begun to work at `ended_ns`."""
    if _told_already:
        return
    born_ns = int(psutil.Process().create_time() * 1e9)
    birth = _birth(os.getpid(), name)
    reporter.send({**birth, "event": "started", "time_ns": born_ns})
    reporter.send({**birth, "event": "ended", "time_ns": max(born_ns, ended_ns), "began_ns": born_ns})


def report_child_processes(reporter: Reporter) -> None:
    """Tell of every process that this one starts through multiprocessing, from now on, and of how it ends if not well."""
    start = BaseProcess.start

    def telling(self: BaseProcess, *args: Any, **kwargs: Any) -> None:
        began_ns = time.time_ns()
        start(self, *args, **kwargs)
        if self.pid is not None:
            reporter.send({**_birth(self.pid, self.name), "event": "started", "time_ns": began_ns})
            _report_exit(reporter, self)

    BaseProcess.start = telling  # type: ignore[method-assign]


def _report_exit(reporter: Reporter, process: Any) -> None:
    """Tell how `process` has ended, if not well: nobody but its parent can know, and vLLM does not always ask."""
    birth, popen = _birth(process.pid, process.name), process._popen  # noqa: SLF001
    poll, one_at_a_time, told = popen.poll, threading.Lock(), False

    def polled(*args: Any, **kwargs: Any) -> int | None:
        nonlocal told
        with one_at_a_time:  # the answer comes once; who asks meanwhile finds it remembered
            code: int | None = poll(*args, **kwargs)
            if code and not told:  # at once: who asks may be about to end as well
                told = True
                ended = {"event": "exited", "time_ns": time.time_ns(), "attributes": {"exit_code": code}}
                reporter.send({**birth, **ended})
        return code

    def wait() -> None:
        multiprocessing.connection.wait([popen.sentinel])
        while polled() is None and psutil.pid_exists(process.pid):
            time.sleep(_LOOK_SECONDS)  # what it held open is closed a moment before it has ended

    popen.poll = polled
    threading.Thread(target=wait, name=f"phasebus {process.name}", daemon=True).start()


def _birth(pid: int, name: str) -> dict[str, Any]:
    _, trace, parent, _ = os.environ.get("TRACEPARENT", "---").split("-")
    return {
        "step": process_start_step_id(pid, trace),
        "parent": parent or None,
        "name": START_PROCESS,
        "pid": pid,
        "process": name,
        "attributes": {},
        "traced": False,
    }
