"""Whether this process may be forked: no other thread, no device, no debugger; and whether a fork server can be had at all."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Final

_DEVICES: Final = ("/dev/nvidia", "/dev/kfd", "/dev/dri", "/dev/davinci", "/dev/accel", "/dev/vfio", "/dev/neuron")
_JEMALLOC: Final = "jemalloc_bg_thd"
"""The thread of the allocator in Arrow's library."""
_CUDA_DEVICES: Final = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg", "/dev/nvmap")
"""What CUDA, or ROCm under its name, needs: of NVIDIA's driver, of AMD's, of WSL's, and of Tegra's."""
_MANAGED: Final = re.compile(r"/dev/nvidia(ctl|\d+|-caps/.*)")
"""What NVML opens. A process that computes opens /dev/nvidia-uvm as well."""
_NVML: Final = "libnvidia-ml.so.1"
_CUDA_DRIVER: Final = "libcuda.so.1"
_NOT_INITIALIZED: Final = 3  # CUDA_ERROR_NOT_INITIALIZED
_ACCELERATORS: Final = ("cuda", "xpu")
_CALLS: Final = ((os, "pidfd_open"), (os, "memfd_create"), (signal, "pidfd_send_signal"))


def missing_call() -> str | None:
    """Return which system call that a fork server needs cannot be made, and why; None if all can.

    Portable builds of Python, such as those that uv installs, have them since July 2026; a kernel before Linux 5.3, or a sandbox, may lack
    them.
    """
    for module, name in _CALLS:
        if not hasattr(module, name):
            return (
                f"this build of Python has no {module.__name__}.{name}; use a newer build, or that of the distribution"
            )
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        return f"pidfd_open fails, as before Linux 5.3 and in some sandboxes: {error.strerror}"
    return None


def reason_against_forking() -> str | None:
    """Return why this process must not be forked, as far as that can be seen before; None if nothing is against it."""
    if sys.gettrace() is not None or _tracer() != 0:
        return "a debugger is attached"
    others = set(threading.enumerate()) - {threading.current_thread()}
    if running := others - _waiting_for_children(others):
        return f"the thread {running.pop().name!r} runs after the imports"
    return touched_device()


def reason_against_priority(wanted: object) -> str | None:
    """Return why a fork of this process cannot have the priority `wanted`; None if it can, or if none is named.

    A process without the right to do so cannot raise its priority again.
    """
    own = os.getpriority(os.PRIO_PROCESS, 0)
    if not isinstance(wanted, int) or wanted >= own:
        return None
    try:
        os.setpriority(os.PRIO_PROCESS, 0, wanted)
    except OSError:
        return f"its priority is lower than the command's (a niceness of {own}, not {wanted})"
    os.setpriority(os.PRIO_PROCESS, 0, own)
    return None


def reason_after_forking() -> str | None:
    """Return why the fork of this process must not be used: a thread that did not end for it; called in the parent."""
    waiting = _waiting_for_children(threading.enumerate())
    if (number := len(threads_of("self")) - 1 - len(waiting)) > 0:
        return f"{number} native threads run after the imports"
    return None


def reason_after_trial_fork() -> str | None:
    """Fork once, as libraries end their threads for that; return why no fork of this process must be used."""
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return reason_after_forking()


def threads_of(process: object) -> list[str]:
    """Return the names of a process's threads, without the one of an allocator that prepares itself for forks.

    Source: jemalloc, src/background_thread.c (``background_thread_prefork0``, ``background_thread_postfork_child``).
    """
    names = [path.read_text().strip() for path in Path(f"/proc/{process}/task").glob("*/comm")]
    return [name for name in names if name != _JEMALLOC]


def _waiting_for_children(threads: Iterable[threading.Thread]) -> set[threading.Thread]:
    """Return the threads that do nothing but wait for a child process, and hold nothing that a fork needs meanwhile.

    Libraries of kernels compile in the background when they are imported, in processes that such threads reap. Source:
    humming, utils/jit.py (``popen_and_reap``).
    """
    frames = sys._current_frames()  # noqa: SLF001  # the documented way to see another thread's stack
    return {each for each in threads if _only_waits(frames.get(each.ident or 0))}


def _only_waits(frame: FrameType | None) -> bool:
    if frame is None or (frame.f_code.co_name, frame.f_code.co_filename) != ("_try_wait", subprocess.__file__):
        return False
    return {each.f_code.co_filename for each, _ in traceback.walk_stack(frame)} == {
        subprocess.__file__,
        threading.__file__,
    }


def touched_device() -> str | None:
    """Return which device has been initialized in this process, or in the one it was forked from; None if none has.

    Counting NVIDIA's devices by NVML, their management library, initializes none, although NVML keeps them open: torch and vLLM
    do it when they are imported, and fork afterwards. Source: PyTorch, "Poison fork in multiprocessing".
    """
    torch = sys.modules.get("torch")
    for name in _ACCELERATORS:
        module = getattr(torch, name, None)
        for check in ("is_initialized", "_is_in_bad_fork"):
            if (asked := getattr(module, check, None)) is not None and asked() and not _counted_none(name, check):
                return f"a device is initialized ({name})"
    if _cuda_driver_is_initialized():
        return "a device is initialized (the driver of CUDA)"
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except OSError:
            continue
        if target.startswith(_DEVICES) and not (_MANAGED.fullmatch(target) and _loaded(_NVML) is not None):
            return f"a device is open ({target})"
    return None


def _counted_none(name: str, check: str) -> bool:
    """Return whether torch only counted the devices of CUDA before it was forked, by the driver, where there is none."""
    return name == "cuda" and check == "_is_in_bad_fork" and not any(map(os.path.exists, _CUDA_DEVICES))


def _cuda_driver_is_initialized() -> bool:
    """Return whether this process has initialized the driver, with or without torch (newer versions of Triton do)."""
    driver = _loaded(_CUDA_DRIVER)
    return driver is not None and driver.cuDeviceGetCount(ctypes.byref(ctypes.c_int())) != _NOT_INITIALIZED


def _loaded(library: str) -> ctypes.CDLL | None:
    """Return a library if this process has loaded it; None otherwise, or if that cannot be seen."""
    try:
        return ctypes.CDLL(library, mode=os.RTLD_NOLOAD | os.RTLD_NOW)
    except OSError:
        return None


def flush_output() -> None:
    """Write out what the imports have printed: a fork would write it again."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or nowhere to write to
            stream.flush()


def _tracer() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("TracerPid:")[2].split()[0])
