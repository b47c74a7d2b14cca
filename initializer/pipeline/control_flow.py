"""Converting exits and cancellations that were not requested, which would end a start-up silently, into errors.

A task group ignores a task that ends in CancelledError, and SystemExit ends the event loop. In a callback or in a phase's
work, both are defects, so they are converted into errors with a message.
"""

from __future__ import annotations

import asyncio
import math
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from phasebus.initializer.pipeline.errors import CallbackError, UnexpectedCancellationError

_FRAMEWORK = ("phasebus.", "anyio.", "asyncio.", "trio.", "contextlib", "concurrent.")


@contextmanager
def errors_only(*, owns_task: bool = False) -> Iterator[None]:
    """Convert every exception of the block that is neither an error nor a requested cancellation into an error.

    Args:
        owns_task: Whether the current task belongs to the caller alone, so that only a cancel scope can request its
            cancellation. Otherwise ``asyncio.Task.cancel`` counts as a request as well.

    Raises:
        CallbackError: The block raised SystemExit or another exception that is not an `Exception`.
        UnexpectedCancellationError: The block was cancelled, although nothing outside it requested that.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:
        if isinstance(error, anyio.get_cancelled_exc_class()) and _is_cancellation_requested(owns_task=owns_task):
            raise
        raise error_for(error) from error


def error_for(error: BaseException) -> Exception:
    """Return the error to raise in place of `error`, with the notes of `error` and the line that raised it."""
    failure: Exception
    if isinstance(error, Exception):
        return error
    if isinstance(error, SystemExit):
        failure = CallbackError(f"sys.exit({error.code!r}) was called; raise an exception to end the start-up")
    elif isinstance(error, anyio.get_cancelled_exc_class()):
        failure = UnexpectedCancellationError(
            f"{type(error).__name__} was raised, but nothing outside had requested a cancellation; "
            "a task or a call that was awaited had probably been cancelled"
        )
    else:
        failure = CallbackError(f"{_shown(error)} was raised, which is not an Exception; raise an exception instead")
    failure.__cause__ = error
    for note in getattr(error, "__notes__", ()):
        failure.add_note(note)
    if (place := _origin(error)) is not None:
        failure.add_note(f"at {place}")
    return failure


def _is_cancellation_requested(*, owns_task: bool) -> bool:
    """Return whether a cancel scope around the current task, or `asyncio.Task.cancel`, has requested its cancellation."""
    if anyio.current_effective_deadline() == -math.inf:
        return True
    if owns_task or not issubclass(anyio.get_cancelled_exc_class(), asyncio.CancelledError):
        return False
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _shown(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    except Exception:  # noqa: BLE001  # its __str__ failed
        return type(error).__name__


def _origin(error: BaseException) -> str | None:
    """Return the function and line of the first frame in `error`'s traceback that is not in a framework."""
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__"))
        if not f"{module}.".startswith(_FRAMEWORK):
            return f"{frame.f_code.co_qualname} ({frame.f_code.co_filename}:{line})"
    return None
