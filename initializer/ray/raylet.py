"""The raylet that a Ray worker belongs to, and the end of the worker when it dies. Read from Ray 2.60.

A raylet puts its pid into the environment of its workers (`src/ray/raylet/worker_pool.cc`: RAY_RAYLET_PID, RAY_JOB_ID),
and a busy worker outlives it until its call has ended.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress

import psutil

_POLL_SECONDS = 0.5


def end_with_the_raylet() -> None:
    """End this worker, and every process of its job below the same raylet, within a second of the raylet's death."""
    raylet = os.environ.get("RAY_RAYLET_PID", "")
    if raylet.isdigit() and os.getppid() == int(raylet):
        threading.Thread(target=_watch, args=(raylet,), name="phasebus raylet watch", daemon=True).start()


def _watch(raylet: str) -> None:
    while os.getppid() == int(raylet):
        time.sleep(_POLL_SECONDS)
    job = os.environ.get("RAY_JOB_ID")
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            environment = process.environ()
            same = environment.get("RAY_RAYLET_PID") == raylet and environment.get("RAY_JOB_ID") == job
            if same and process.pid != os.getpid():
                process.kill()
    os._exit(1)
