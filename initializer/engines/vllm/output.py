"""The output of vLLM's processes."""

from __future__ import annotations

import re
from os import SEEK_END
from pathlib import Path

_LAST_LINES = 12
_MAX_END_BYTES = 8 * 2**20
_PREFIX = re.compile(r"^(\([^)]*\) )?(ERROR [\d: .-]+ \[[^\]]*\] )?")
_RAISED = re.compile(r"^(\w+\.)*\w*(Error|Exception|Interrupt|Exit|Killed)\b(: .+)?$")


def last_lines(log: Path) -> str:
    """Return the first error in the engine's output and its end, for an error message; "" if it printed nothing."""
    try:
        lines = _ends_of(log).decode(errors="replace").splitlines()
    except OSError:
        return f"\nits output, {log}, cannot be read"
    if not lines:
        return ""
    error = first_error(lines)
    cause = [] if error is None else [f"the first error in its output: {error}"]
    shown = [*cause, f"its last lines (all in {log}):", *(f"  {line}" for line in lines[-_LAST_LINES:])]
    return "\n" + "\n".join(shown)


def _ends_of(log: Path) -> bytes:
    """Return the content of a file, without the middle of a very long one."""
    with log.open("rb") as file:
        begin = file.read(_MAX_END_BYTES)
        file.seek(max(len(begin), file.seek(0, SEEK_END) - _MAX_END_BYTES))
        return begin + file.read(_MAX_END_BYTES)


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
