"""The Python stacks of a process, as text: a text for each thread, the main thread first."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Final

import psutil

from phasebus.stack_dump import FILE_NAME, handled_signals
from phasebus.telemetry.own_threads import OWN_THREADS

_WAIT_SECONDS: Final = 1.5
_PY_SPY_SECONDS: Final = 4.0
_MAX_BYTES: Final = 512 * 1024
_MAX_FRAMES: Final = 24
_OWN_THREADS: Final = ("phasebus ", "bus ")
_FILE: Final = re.compile(rf"/memfd:{FILE_NAME}-(\d+)\b")
_OWN_CODE: Final = re.compile(r"/phasebus/initializer/engines/\w+/inside/\w+\.py")
_PY_SPY_THREAD: Final = re.compile(r'^Thread (?P<id>\S+)[^"]*(?:"(?P<name>.*)")?$')
_PY_SPY_FRAME: Final = re.compile(r"^\s+(?P<function>.+) \((?P<file>[^()]*?)(?::(?P<line>\d+))?\)$")


def stacks_of(pid: int) -> tuple[str, ...]:
    """Return the stacks of a process of this machine; none if they cannot be read.

    No signal is sent to a process that has no handler for it.
    """
    if pid == os.getpid():
        return own_stacks()
    return (() if _is_stopped(pid) else offered_stacks(pid)) or py_spy_stacks(pid)


def _is_stopped(pid: int) -> bool:
    """Return whether a process is stopped: it would handle a signal only when it is continued."""
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    except psutil.Error:
        return False


def own_stacks() -> tuple[str, ...]:
    """Return the stacks of this process, without the threads of phasebus that only observe."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    main = threading.main_thread().ident
    frames = sorted(sys._current_frames().items(), key=lambda item: item[0] != main)  # noqa: SLF001  # documented
    texts = []
    for ident, frame in frames:
        name = names.get(ident, str(ident))
        if ident == threading.get_ident() or name.startswith(_OWN_THREADS):
            continue
        stack = reversed(traceback.extract_stack(frame, _MAX_FRAMES))
        lines = [f'  File "{each.filename}", line {each.lineno} in {each.name}' for each in stack]
        texts.append("\n".join([f"{name}:", *lines]))
    return tuple(texts)


def offered_stacks(pid: int) -> tuple[str, ...]:
    """Return the stacks that a process offers (`phasebus.stack_dump`); none if it offers none or does not answer."""
    offer = _offer_of(pid)
    if offer is None:
        return ()
    path, number = offer
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return ()
    try:
        if _FILE.match(os.readlink(f"/proc/self/fd/{descriptor}")) is None:  # noqa: PTH115  # replaced meanwhile
            return ()
        os.ftruncate(descriptor, 0)
        if number not in handled_signals(pid):  # it would end the process
            return ()
        os.kill(pid, number)
        text = _written(descriptor)
    except OSError:
        return ()
    finally:
        os.close(descriptor)
    return _faulthandler_stacks(text)


def _offer_of(pid: int) -> tuple[str, int] | None:
    """Return the path of the file that a process offers its stacks in, and the signal."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found = _FILE.match(os.readlink(entry.path))  # noqa: PTH115
                if found and signal.SIGRTMIN <= int(found[1]) <= signal.SIGRTMAX:  # others have a meaning
                    return entry.path, int(found[1])
    return None


def _written(descriptor: int) -> str:
    """Return what is written to a file, once it does not grow any more."""
    deadline, size = time.monotonic() + _WAIT_SECONDS, 0
    while time.monotonic() < deadline:
        time.sleep(0.02)
        grown = os.fstat(descriptor).st_size
        if grown and grown == size:
            break
        size = grown
    return os.pread(descriptor, _MAX_BYTES, 0).decode(errors="replace")


def _faulthandler_stacks(text: str) -> tuple[str, ...]:
    """Return the stacks of a dump by `faulthandler`, which has the main thread last: each new thread comes first.

    Of more than 100 threads the last ones are missing; the thread that handled the signal is the main one then, mostly.
    """
    stacks: list[str] = []
    current = 0
    for line in text.splitlines():
        if line.startswith(("Thread ", "Current thread ")):
            current = len(stacks) if line.startswith("Current") else current
            stacks.append(line)
        elif line.startswith("  ") and stacks:
            stacks[-1] += f"\n{line}"
    if not stacks:
        return ()
    main = stacks.pop(current if text.rstrip().endswith("...") else -1)
    stacks = [stack for stack in stacks if not _OWN_CODE.search(stack)]
    return tuple(_bounded(stack) for stack in ("main thread:" + main.partition(":")[2], *stacks))


def py_spy_stacks(pid: int) -> tuple[str, ...]:
    """Return the stacks that py-spy finds, if it is installed and may; none otherwise."""
    program = shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))
    if program is None:
        return ()
    try:
        with OWN_THREADS.counted_process():
            found = subprocess.run(  # noqa: S603  # the program's own name and a number
                [program, "dump", "--nonblocking", "--pid", str(pid)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_PY_SPY_SECONDS,
                check=False,
            )
    except (OSError, subprocess.SubprocessError):
        return ()
    return _py_spy_threads(found.stdout.decode(errors="replace")) if found.returncode == 0 else ()


def _py_spy_threads(text: str) -> tuple[str, ...]:
    stacks: list[str] = []
    main = 0
    for line in text.splitlines():
        if (thread := _PY_SPY_THREAD.match(line)) is not None:
            name = thread["name"] or f"thread {thread['id']}"
            main = len(stacks) if name == "MainThread" else main
            stacks.append(f"{name}:")
        elif (frame := _PY_SPY_FRAME.match(line)) is not None and stacks:
            stacks[-1] += f'\n  File "{frame["file"]}", line {frame["line"] or 0} in {frame["function"]}'
    if stacks:
        stacks.insert(0, stacks.pop(main))
    return tuple(_bounded(stack) for stack in stacks)


def _bounded(stack: str) -> str:
    lines = stack.splitlines()
    return "\n".join(lines[: _MAX_FRAMES + 1])
