"""The raylet that a worker of Ray's belongs to, and what is to happen when it dies. Read from Ray 2.60.

A raylet tells its workers of itself in their environment (`src/ray/raylet/worker_pool.cc`: RAY_RAYLET_PID, RAY_JOB_ID),
and a worker that is busy outlives it until its call has ended.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress

import psutil

_LOOK_SECONDS = 0.5


def end_with_the_raylet() -> None:
    """Have this worker, and every process of its job below the same raylet, end within a second of the raylet."""
    raylet = os.environ.get("RAY_RAYLET_PID", "")
    if raylet.isdigit() and os.getppid() == int(raylet):
        threading.Thread(target=_watch, args=(raylet,), name="phasebus raylet watch", daemon=True).start()


def _watch(raylet: str) -> None:
    while os.getppid() == int(raylet):
        time.sleep(_LOOK_SECONDS)
    job = os.environ.get("RAY_JOB_ID")
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            environment = process.environ()
            same = environment.get("RAY_RAYLET_PID") == raylet and environment.get("RAY_JOB_ID") == job
            if same and process.pid != os.getpid():
                process.kill()
    os._exit(1)
