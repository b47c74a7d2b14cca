"""Ids of steps and traces, as W3C Trace Context wants them."""

from __future__ import annotations

import os
from random import Random

_random = Random()  # unique, not secret; one of its own, as programs seed the common one, and alike
os.register_at_fork(after_in_child=_random.seed)


def new_step_id() -> str:
    """Return a random step id: 16 hexadecimal digits, never all zero (parent-id).

    Asking the system for random bytes takes longer than all else of a step does on some virtual machines.
    """
    return f"{_random.randrange(1, 1 << 64):016x}"


def new_trace_id() -> str:
    """Return a random trace id: 32 hexadecimal digits, never all zero (trace-id)."""
    return f"{_random.randrange(1, 1 << 128):032x}"
