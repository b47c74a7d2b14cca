"""The moment at which this process began to import phasebus's part of a replica, before it imported Ray Serve LLM."""

import time
from typing import Final

FIRST_LINE_NS: Final = time.time_ns()
"""Nanoseconds since the epoch."""
