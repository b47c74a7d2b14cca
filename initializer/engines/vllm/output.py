"""The output of vLLM's processes."""

from __future__ import annotations

import re
from pathlib import Path

_LAST_LINES = 12
_PREFIX = re.compile(r"^(\([^)]*\) )?(ERROR [\d: .-]+ \[[^\]]*\] )?")
_RAISED = re.compile(r"^(\w+\.)*\w*(Error|Exception|Interrupt|Exit|Killed)\b(: .+)?$")


def last_lines(log: Path) -> str:
    """Return the first error in the engine's output and its end, for an error message; "" if it printed nothing."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"\nits output, {log}, cannot be read"
    if not lines:
        return ""
    error = first_error(lines)
    cause = [] if error is None else [f"the first error in its output: {error}"]
    shown = [*cause, f"its last lines (all in {log}):", *(f"  {line}" for line in lines[-_LAST_LINES:])]
    return "\n" + "\n".join(shown)


def first_error(lines: list[str]) -> str | None:
    """Return the last line of the first traceback in `lines`; later ones are mostly consequences of that failure."""
    inside = False
    for line in lines:
        bare = _PREFIX.sub("", line)
        if bare.startswith("Traceback (most recent call last)"):
            inside = True
        elif inside and _RAISED.match(bare):
            return bare
    return None
