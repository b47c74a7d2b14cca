"""Logging that does no harm: a handler or a filter of the application may raise, and must not end what it was called from."""

from __future__ import annotations

import contextlib
import logging

logger = logging.getLogger("phasebus.bus")


def log(level: int, message: str, *values: object, error: BaseException | None = None) -> None:
    """Log `message` with its `values`, and the traceback of `error`."""
    with contextlib.suppress(Exception):
        logger.log(level, message, *values, exc_info=error, stacklevel=2)
