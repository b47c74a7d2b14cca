"""A fork of the server becomes the command that was asked for, as if it had been executed."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import logging
import multiprocessing.process
import os
import runpy
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import resource_tracker
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NoReturn

from phasebus.initializer.engines.vllm.inside.compile_times import inherited
from phasebus.initializer.engines.vllm.inside.forkserver import imported
from phasebus.initializer.engines.vllm.inside.forkserver.caller import Caller
from phasebus.initializer.engines.vllm.inside.forkserver.kept import environment, messages

_PR_SET_NAME: Final = 15
_FIRST_FREE: Final = 400
"""Descriptors of this module's own are moved to numbers from here on while those of the command are put in place."""


def become(connection: socket.socket, descriptors: Sequence[int]) -> NoReturn:
    """Run the command of a request in this process, and end as it ends.

    Args:
        connection: Where it is reported that the command runs.
        descriptors: The request's body, the working folder, and what the command inherits.
    """
    try:
        body = messages.read_body(descriptors[0])  # not in the server: it has secrets
        if changed := environment.differences(body["environment"]):
            refused = {"refused": f"other values of {', '.join(changed[:5])}", "outdated": True}
            messages.send(connection, refused)
            os._exit(0)
        connection = _moved(connection)
        _own_descriptors(descriptors, body["numbers"])
        _apply(body)
        run = _main(body)
    except BaseException as error:  # noqa: BLE001  # it is the whole process; its client executes the command
        messages.send(connection, {"refused": f"{type(error).__name__}: {error}"})
        os._exit(1)
    messages.send(connection, {"begun": True})
    code: object = 1
    try:
        run()
        code = 0
    except SystemExit as ended:
        code = ended.code
        raise
    except BaseException as error:
        error.__traceback__ = _own_traceback(error)
        raise
    finally:
        messages.send(connection, {"ending": code if isinstance(code, int) else int(code is not None)})
    raise SystemExit(0)


def _moved(connection: socket.socket) -> socket.socket:
    """Return a connection with a number that no descriptor of the command has."""
    number = fcntl.fcntl(connection.fileno(), fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
    connection.close()
    return socket.socket(fileno=number)


def _own_descriptors(descriptors: Sequence[int], numbers: Sequence[int]) -> None:
    """Enter the working folder, and give each inherited descriptor the number it has in the client."""
    body, folder, *inherited = descriptors
    os.close(body)
    os.fchdir(folder)
    os.close(folder)
    high = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE) for each in inherited]
    for each in inherited:
        os.close(each)
    used = {int(path.name) for path in Path("/proc/self/fd").iterdir() if path.exists()}
    if taken := [number for number in numbers if number > 2 and number in used]:
        raise OSError(f"the descriptors {taken} are in use")
    for descriptor, number in zip(high, numbers, strict=True):
        os.dup2(descriptor, number, inheritable=True)
        os.close(descriptor)


def _apply(body: Mapping[str, Any]) -> None:
    """Give this process the settings of the client, and nothing random of the server."""
    with contextlib.suppress(OSError):
        if body["session"] == os.getsid(0):
            os.setpgid(0, body["group"])
        else:
            os.setsid()
    set_by_imports = environment.set_by_imports(body["environment"])
    caller, cpus = body["caller"], len(os.sched_getaffinity(0))
    Caller(
        environment=body["environment"],
        limits={int(name): tuple(value) for name, value in caller["limits"].items()},
        cpus=frozenset(caller["cpus"]),
        umask=caller["umask"],
        mask=frozenset(caller["mask"]),
        ignored=frozenset(caller["ignored"]),
        priority=caller["priority"],
    ).apply()
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(caller["oom_score_adj"]))
    imported.record_environment()
    for name, value in set_by_imports.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    imported.record_environment()
    inherited.note_fork()
    imported.apply_cpus(cpus, len(os.sched_getaffinity(0)), os.environ)
    time.tzset()
    tempfile.tempdir = None
    multiprocessing.process.current_process().authkey = os.urandom(32)
    multiprocessing.process.current_process()._config.pop("tempdir", None)  # type: ignore[attr-defined]  # noqa: SLF001
    resource_tracker._resource_tracker._fd = None  # type: ignore[attr-defined]  # noqa: SLF001
    resource_tracker._resource_tracker._pid = None  # type: ignore[attr-defined]  # noqa: SLF001
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=stream is sys.stderr or stream.isatty())  # type: ignore[union-attr]
    _configure_logging()


def _configure_logging() -> None:
    """Configure vLLM's logging again: it depends on the terminal, and on files in the working folder."""
    configure = getattr(sys.modules.get("vllm.logger"), "_configure_vllm_root_logger", None)
    if configure is not None:
        configure()
    logging.getLogger("phasebus").handlers.clear()


def _main(body: Mapping[str, Any]) -> Callable[[], object]:
    """Return what runs the command: its script, or its module."""
    arguments = list(body["arguments"])
    module = ModuleType("__main__")
    module.__dict__["__builtins__"] = __builtins__
    sys.modules["__main__"] = module
    sys.argv[:] = arguments
    sys.orig_argv[:] = [sys.executable, *arguments]
    _name_process(body["name"], body["title"])
    safe_path = bool(os.environ.get("PYTHONSAFEPATH"))
    if body["module"] is not None:
        if not safe_path:
            sys.path.insert(0, str(Path.cwd()))
        run_module = runpy._run_module_as_main  # type: ignore[attr-defined]  # noqa: SLF001
        return lambda: run_module(body["module"])
    script = body["script"]
    if not safe_path:
        sys.path.insert(0, str(Path(script).resolve().parent))
    module.__file__ = script
    code = compile(Path(script).read_bytes(), script, "exec")
    return lambda: exec(code, module.__dict__)  # noqa: S102  # the command's own script


def _name_process(name: str, title: str) -> None:
    with contextlib.suppress(ImportError):
        import setproctitle

        setproctitle.setproctitle(title)
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode("utf-8", "surrogateescape")[:15], 0, 0, 0)


def _own_traceback(error: BaseException) -> Any:
    """Return the part of a traceback that the command itself has."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_globals.get("__name__") != "__main__":
        traceback = traceback.tb_next
    return traceback or error.__traceback__
