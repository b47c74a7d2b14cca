"""What happens when a process begins to import phasebus's part of a replica, before it imports Ray Serve LLM."""

import time
from typing import Final

FIRST_LINE_NS: Final = time.time_ns()
"""When it began, in nanoseconds since the epoch."""

BEGINS_FORKSERVER: Final = "PHASEBUS_SERVE_FORKSERVER"
"""The variable of a replica whose fork server begins at this moment: a `ForkServerUse`, or "default"."""
