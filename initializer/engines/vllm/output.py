"""What vLLM's processes print."""

from __future__ import annotations

from pathlib import Path

_LAST_LINES = 12


def last_lines(log: Path) -> str:
    """Return the end of the engine's output, for an error message."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
    except OSError:
        return f"its output was to be in {log}"
    return "\n".join([f"its last lines (all in {log}):", *(f"  {line}" for line in lines)])
