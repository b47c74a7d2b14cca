"""Ending a Ray worker when its raylet dies. Read from Ray 2.60.

A raylet sets its pid in the environment of its workers (`src/ray/raylet/worker_pool.cc`: RAY_RAYLET_PID, RAY_JOB_ID).
Ray ends a busy worker of a dead raylet only after its call.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress

import psutil

_POLL_SECONDS = 0.5


def end_with_the_raylet() -> None:
    """When the raylet dies, end this worker and every process of the same raylet and job, within a second."""
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
