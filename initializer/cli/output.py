"""Standard streams that cannot fail a start when they are closed, full or broken, or cannot encode a text."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TextIO, cast


class OutputError(Exception):
    """Raised when a command's result cannot be written to standard output.

    No PhasebusError: the help would import the bus for it.
    """


class TolerantStream:
    """A text stream that drops text that cannot be written. All other attributes are those of the underlying stream.

    Args:
        stream: The underlying stream; None if it was closed when the process was started.

    Attributes:
        error: The first error of the underlying stream; None while there is none.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = open(os.devnull, "w", encoding="utf-8") if stream is None else stream  # noqa: SIM115, PTH123
        self.error: OSError | ValueError | None = None

    def write(self, text: str) -> int:
        """Write `text`, or drop it."""
        self._attempt(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Write the buffered text, or drop it."""
        self._attempt(self._stream.flush)

    def _attempt(self, function: Any, *arguments: Any) -> None:
        if self.error is None:
            try:
                function(*arguments)
            except (OSError, ValueError) as error:  # ValueError: it was closed, or cannot encode the text
                self.error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def write_out(text: str) -> None:
    """Write a line to standard output."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def write_err(text: str) -> None:
    """Write a line to standard error."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def indented(text: str, spaces: int = 2) -> str:
    """Return `text` with every line but the first indented, so that none looks like a message of its own.

    A service or a callback chooses the text of an error. systemd's journal also reads a priority at the beginning of a line
    (sd-daemon(3)), and shows one of ``<0>`` to all users.
    """
    first, *others = text.split("\n")
    return "\n".join([first, *(line if line[:1] in ("", " ", "\t") else f"{spaces * ' '}{line}" for line in others)])


def log_warnings() -> None:
    """Write the warnings and errors that phasebus logs to standard error, one line each."""
    logger = logging.getLogger("phasebus")
    keep_loggers_enabled()
    if not logger.handlers:
        logger.addHandler(_WarningHandler(logging.WARNING))
        logger.propagate = False


def keep_loggers_enabled() -> None:
    """Let no logging configuration disable the loggers of phasebus that exist in this process, which is phasebus's own.

    By default `logging.config` disables every logger that it does not configure. The module of a callback may use it, also
    while a callback runs, and a failed start would then end without a line.
    """
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if type(logger) is logging.Logger and f"{name}.".startswith("phasebus."):
            logger.__class__ = _EnabledLogger


class _EnabledLogger(logging.Logger):
    disabled = property(lambda self: False, lambda self, value: None)


class _WarningHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        write_err(indented(f"phasebus: {record.getMessage()}"))


def check_output() -> None:
    """Check that all output was written. A command whose output is its result fails otherwise.

    Raises:
        OutputError: Output could not be written.
        SystemExit: The reader has closed standard output; this needs no message.
    """
    sys.stdout.flush()
    error = getattr(sys.stdout, "error", None)
    if isinstance(error, OSError) and error.errno == errno.EPIPE:
        raise SystemExit(1)
    if error is not None:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"the output cannot be written: {reason}")


def end_process(code: object) -> NoReturn:
    """End this process without waiting for threads. `code` is a value for `sys.exit`.

    A thread that waits for an unresponsive server could delay the end for minutes after all resources were released.
    """
    if code is not None and not isinstance(code, int):
        write_err(str(code))
        code = 1
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit((code or 0) & 0xFF)


@contextmanager
def tolerant_streams() -> Iterator[None]:
    """Make standard output and standard error tolerant, and reserve the standard descriptors that are closed."""
    _reserve_descriptors()
    streams = sys.stdout, sys.stderr
    for stream in streams:
        encoding = str(getattr(stream, "encoding", None) or "").lower()
        with suppress(AttributeError, OSError, ValueError):
            # '?' for characters that cannot be encoded; in UTF-8, escapes for bytes of names that are not UTF-8
            errors = "backslashreplace" if encoding in ("utf-8", "utf8") else "replace"
            cast("Any", stream).reconfigure(errors=errors)
    sys.stdout, sys.stderr = (cast("TextIO", TolerantStream(stream)) for stream in streams)
    try:
        yield
    finally:
        for tolerant in (sys.stdout, sys.stderr):
            with suppress(Exception):
                tolerant.flush()
        sys.stdout, sys.stderr = streams


def _reserve_descriptors() -> None:
    """Open the null device at each closed standard descriptor, so that no other file gets it. Commands do not inherit it."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            with suppress(OSError):
                opened = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
                if opened != descriptor:
                    os.dup2(opened, descriptor, inheritable=False)
                    os.close(opened)
