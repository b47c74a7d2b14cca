"""Ending a failed command with a message and an exit code."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from phasebus.bus import PhasebusError
from phasebus.initializer.cli.output import indented, write_err
from phasebus.initializer.node.termination_message import write_termination_message
from phasebus.telemetry.redaction import redact

SLOWER_EXIT_CODE = 3
"""The exit code of a comparison whose second side is slower; 1 is an error and 2 wrong usage."""


class Interrupted(PhasebusError):  # noqa: N818  # not a fault
    """Raised when a signal has ended a command, after all resources were released.

    Args:
        number: The signal.
        callback: The name and line of the interrupted callback; None without one.
        starts: Whether the command starts something, of which nothing is left.
    """

    def __init__(self, number: int, callback: str | None = None, *, starts: bool = True) -> None:
        where = f", in the callback {callback}" if callback else ""
        left = "; nothing of the start-up is left running" if starts else ""
        super().__init__(f"ended by {signal.Signals(number).name}{where}{left}")
        self.exit_code = 128 + number


class FailureReport:
    """Writes the message of the error that ends a command, once.

    Args:
        tracebacks: Whether to write the whole traceback as well.
        starts: Whether the command starts something. Its error is the termination message of its container, too.
    """

    def __init__(self, *, tracebacks: bool = False, starts: bool = False) -> None:
        self._tracebacks = tracebacks
        self._starts = starts
        self._written: Exception | None = None

    def write(self, error: Exception) -> None:
        """Write the message of `error`, unless it was written before."""
        if error is self._written:
            return
        self._written = error
        if self._tracebacks:
            write_err(redact("".join(traceback.format_exception(error))))
        write_err("\n".join(described(error)))  # at once, as the log of the start has a thread of its own
        if self._starts and not isinstance(error, Interrupted):
            write_termination_message(reason_of(error))


@contextmanager
def reported(*, tracebacks: bool = False, starts: bool = False) -> Iterator[FailureReport]:
    """End the command with a message and an exit code if the block fails.

    Args:
        tracebacks: Whether to show the whole traceback as well.
        starts: Whether the command starts something.
    """
    report = FailureReport(tracebacks=tracebacks, starts=starts)
    try:
        yield report
    except (Exception, KeyboardInterrupt) as caught:  # noqa: BLE001  # every error ends the command with a message
        error = caught if isinstance(caught, Exception) else Interrupted(signal.SIGINT, starts=starts)
        report.write(error)
        raise SystemExit(error.exit_code if isinstance(error, Interrupted) else 1) from None


def reason_of(error: Exception) -> str:
    """Return the message of `error` as one line."""
    return "; ".join(line.strip() for line in described(error)).removeprefix("phasebus: ")


def described(error: Exception) -> list[str]:
    """Return the message of `error` as lines: what failed, where, and in which callback and phase."""
    if isinstance(error, ExceptionGroup):
        return [f"phasebus: {error.message}:", *(f"  {line}" for each in error.exceptions for line in described(each))]
    message = _text_of(error)
    if not isinstance(error, PhasebusError):
        message = f"{type(error).__name__}: {message}" if message else type(error).__name__
    lines = [indented(redact(f"phasebus: {message}"))]
    lines += [indented(redact(f"  {note}"), 4) for note in getattr(error, "__notes__", ())]
    if not isinstance(error, PhasebusError) and (frames := traceback.extract_tb(error.__traceback__)):
        lines.append(f"  at {frames[-1].filename}:{frames[-1].lineno} (--verbose shows the whole traceback)")
    return lines


def _text_of(error: Exception) -> str:
    try:
        return str(error)
    except Exception as failure:  # noqa: BLE001  # an error of the error's own class
        return f"its message cannot be shown: str() raised {type(failure).__name__}"
