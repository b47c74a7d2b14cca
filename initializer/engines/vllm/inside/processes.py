"""The start and the exit of an engine's processes.

From the start of a process to its first step it imports for seconds, and no span covers that time. The parent reports the
beginning of the start; the process itself reports its end, and its imports. Both derive the step's id from the trace, the
machine and the process id.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing.connection
import os
import platform
import threading
import time
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from typing import Any

import psutil
from opentelemetry import trace

from phasebus.initializer.engines.vllm.inside.compile_times import (
    SERVER_COMPILE_SECONDS,
    count_sources,
    inherited,
)
from phasebus.initializer.engines.vllm.inside.ranks import ProcessIdentity, identity_of
from phasebus.initializer.engines.vllm.inside.reporter import Reporter
from phasebus.initializer.ray.process_age import creation_time_ns

START_PROCESS = "start_process"
"""The name of the step from the request for a process to its first work."""

IMPORT_ENGINE = "import_engine"
"""The name of the step inside it from the creation of the process to its first work: imports take nearly all of that."""

SERVES = "serves"
"""The attribute of the start of an API server that is one of several."""

PARENT_PID = "parent_pid"
"""The attribute of an exit with the id of the process that started the one that has exited."""

WAIT_FOR_FORK_SERVER = "wait_for_fork_server"
"""The name of the step inside it until the fork server has forked the process: the server may still import."""

_POLL_SECONDS = 0.01

_starter_reports = False


def suppress_own_start_report() -> None:
    """Note that the process that started this one reports its start, from beginning to end."""
    global _starter_reports  # noqa: PLW0603  # it is a fact about the process
    _starter_reports = True


def process_start_step_id(pid: int, trace: str, host: str | None = None) -> str:
    """Return the id of the step that is the start of a process: 16 hexadecimal digits.

    Args:
        pid: The id of the process.
        trace: The trace id.
        host: The name of its machine; None for this one.
    """
    return hashlib.sha256(f"{trace}:{host or platform.node()}:{pid}".encode("utf-8", "backslashreplace")).hexdigest()[
        :16
    ]


def report_process_start(
    reporter: Reporter, identity: ProcessIdentity, ended_ns: int, *, imported: bool = True
) -> None:
    """Report that this process has started.

    Args:
        reporter: Sends the report.
        identity: This process.
        ended_ns: When its first work began, in nanoseconds since the epoch.
        imported: Whether it has imported the engine; a forked process has not.
    """
    if _starter_reports:
        return
    created_ns = min(creation_time_ns(), ended_ns)
    start = _start_step(os.getpid(), identity)
    attributes = {**identity.attributes, "cpu_seconds": round(time.process_time(), 2)}
    ends = {"event": "ended", "time_ns": ended_ns, "began_ns": created_ns, "attributes": attributes}
    reporter.send({**start, "event": "started", "time_ns": created_ns})
    if imported:
        attributes_of_import = attributes | _compilations(created_ns)
        reporter.send({**_inner_step(start, IMPORT_ENGINE), **ends, "attributes": attributes_of_import})
        if inherited.compile_seconds:
            attributes[SERVER_COMPILE_SECONDS] = round(inherited.compile_seconds, 3)
    reporter.send({**start, **ends})


def _compilations(created_ns: int) -> dict[str, int]:
    with contextlib.suppress(Exception):  # the engine comes first
        return count_sources(created_ns)
    return {}


def report_child_processes(reporter: Reporter) -> None:
    """Report every process of the engine that this one starts from now on, and its exit if that is a failure.

    Processes that load no plugin of ours (those of a user's script, vLLM's coordinator) are left alone.
    """
    start = BaseProcess.start

    def start_and_report(self: BaseProcess, *args: Any, **kwargs: Any) -> None:
        identity = identity_of(self)  # its arguments are gone once it has started
        began_ns = time.time_ns()
        start(self, *args, **kwargs)
        if identity is not None and self.pid is not None:
            step = _start_step(self.pid, identity)
            # the process that is started does not know which step of this one started it
            if (caller := trace.get_current_span().get_span_context()).is_valid:
                step["parent"] = f"{caller.span_id:016x}"
            attributes = {**identity.attributes, **({SERVES: True} if identity.serves else {})}
            reporter.send({**step, "attributes": attributes, "event": "started", "time_ns": began_ns})
            if waited := getattr(self._popen, "waited_ns", None):  # type: ignore[attr-defined]
                ends = {"event": "ended", "began_ns": waited[0], "time_ns": waited[1]}
                reporter.send({**_inner_step(step, WAIT_FOR_FORK_SERVER), **ends})
            _report_exit(reporter, self, identity)

    BaseProcess.start = start_and_report  # type: ignore[method-assign]


def _report_exit(reporter: Reporter, process: Any, identity: ProcessIdentity) -> None:
    """Report the exit of `process` if it failed: only its parent can know, and vLLM does not always ask."""
    step, popen = _start_step(process.pid, identity), process._popen  # noqa: SLF001
    poll, one_at_a_time, reported = popen.poll, threading.RLock(), False  # a signal handler may poll within a poll

    def poll_and_report(flag: int = os.WNOHANG) -> int | None:
        nonlocal reported
        if flag != os.WNOHANG and popen.returncode is None:  # `join` waits; meanwhile other threads may poll
            _wait_for_exit(popen)
        with one_at_a_time:  # the system gives the exit code once; a second caller gets the remembered one
            code: int | None = poll()  # without waiting
            if code and not reported:  # at once: the caller may be about to end as well
                reported = True
                exited = {"event": "exited", "time_ns": time.time_ns()}
                attributes = {**identity.attributes, "exit_code": code, PARENT_PID: os.getpid()}
                reporter.send({**step, **exited, "attributes": attributes})
        return code

    def wait() -> None:
        multiprocessing.connection.wait([popen.sentinel])
        while poll_and_report() is None and psutil.pid_exists(process.pid):
            time.sleep(_POLL_SECONDS)  # its files are closed a moment before it has ended

    popen.poll = poll_and_report
    threading.Thread(target=wait, name=f"phasebus {process.name}", daemon=True).start()


def _wait_for_exit(popen: Any) -> None:
    """Wait until a process has exited, and leave its exit code to be read."""
    if popen.method == "forkserver":  # no child of this process
        multiprocessing.connection.wait([popen.sentinel])
        return
    with contextlib.suppress(ChildProcessError):  # its exit code has been read
        os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOWAIT)


def _inner_step(start: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a step of the process of the step `start`, inside that step."""
    step = hashlib.sha256(f"{start['step']}:{name}".encode()).hexdigest()[:16]
    return {**start, "step": step, "parent": start["step"], "name": name}


def _start_step(pid: int, identity: ProcessIdentity) -> dict[str, Any]:
    _, trace_id, parent, *_ = f"{os.environ.get('TRACEPARENT', '')}---".split("-")  # the program may have changed it
    return {
        "step": process_start_step_id(pid, trace_id),
        "parent": parent or None,
        "name": START_PROCESS,
        "pid": pid,
        "process": identity.name,
        "attributes": identity.attributes,
        "traced": False,
    }
