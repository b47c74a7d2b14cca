"""The output of an engine's processes on its way to a file: a process of its own that no full disk can stop.

The processes write to a pipe. If they wrote to the file themselves, a full disk would make every `print` of theirs raise,
and would end a start that works. ``python -m phasebus.telemetry.output_file FILE`` reads the pipe as its standard input
until all of them have ended, masks secrets, and skips what the disk has no room for. If it is killed, another one takes the pipe over: a pipe without a
reader would make every `print` raise as well.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Final, TextIO

from phasebus.telemetry.files import open_regular

_CHUNK: Final = 65536
_IDLE_SECONDS: Final = 0.5
"""How long the start of a line, such as a progress bar, waits for its end."""


MAX_WRITERS: Final = 5
"""The output is discarded once so many processes that wrote it have been killed."""


class Redirection:
    """The output of this process on its way to a file.

    Args:
        writer: What starts the process that writes.
        before: Descriptors of where standard output and error went before.
    """

    def __init__(self, writer: _Writer, before: Sequence[int]) -> None:
        self._writer = writer
        self._before = before

    def wait(self) -> bool:
        """Return whether the output is written to the file; if not, it goes again where it went before."""
        succeeded = self._writer.is_ready()
        for stream, descriptor in zip(_streams(), self._before, strict=False):
            if not succeeded:
                os.dup2(descriptor, stream.fileno())
            os.close(descriptor)
        if self._before:
            self._writer.keep(succeeded)
        self._before = ()
        return succeeded


class _Writer:
    """Starts the process that writes what is read from a pipe to a file, and another one if it is killed.

    Args:
        reader: The end of the pipe, which this process keeps: while there is one, prints do not fail.
        file: The path of the file.

    Raises:
        OSError: No process can be started.
    """

    def __init__(self, reader: int, file: str) -> None:
        self._reader = reader
        self._file = file
        self._start()

    def _start(self) -> None:
        self._lives, lives = os.pipe()  # has an end when the process has
        try:
            self._process = subprocess.Popen(  # noqa: S603  # our own module
                [sys.executable, "-P", "-m", __spec__.name, self._file],
                stdin=self._reader,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=[lives],
            )
        except OSError:
            os.close(self._lives)
            raise
        finally:
            os.close(lives)

    def is_ready(self) -> bool:
        """Wait until the process can write; return whether it can."""
        return self._process.wait() == 0

    def keep(self, succeeded: bool) -> None:
        """Replace the process whenever it is killed, if the first one has succeeded."""
        if succeeded:
            threading.Thread(target=self._replace, name="phasebus output", daemon=True).start()
        else:
            os.close(self._reader)
            os.close(self._lives)

    def _replace(self) -> None:
        for _ in range(MAX_WRITERS - 1):
            os.read(self._lives, 1)  # until it has ended; as this process can print, it was killed
            os.close(self._lives)
            try:
                self._start()
            except OSError:
                break
            if not self.is_ready():
                break
        else:
            os.read(self._lives, 1)
        while os.read(self._reader, _CHUNK):
            pass


def redirect_output(file: str) -> Redirection | None:
    """Append what this process, and every process that it starts, prints from now on to `file`.

    Returns:
        What is to be waited for before anything important is printed. None if the output stays where it was, as `file`
        cannot be opened or no process can be started.
    """
    try:
        os.close(_open(file))
        reader, writer = os.pipe()
    except OSError:
        return None
    try:
        process = _Writer(reader, file)
    except OSError:
        os.close(reader)
        os.close(writer)
        return None
    before = [os.dup(stream.fileno()) for stream in _streams()]
    for stream in _streams():
        stream.flush()
        os.dup2(writer, stream.fileno())
    os.close(writer)
    return Redirection(process, before)


def _streams() -> Sequence[TextIO]:
    return (sys.stdout, sys.stderr)


def copy_lines(
    source: int, file: str, redact: Callable[[str], str], *, opened: Callable[[], object] = lambda: None
) -> None:
    """Append each line of `source` to `file` until its last writer has closed it.

    Args:
        source: The descriptor of a pipe.
        file: The path of the file.
        redact: What masks the secrets in a line.
        opened: Called once the file is open.
    """
    output = _Output(file)
    opened()
    rest = b""
    while True:
        idle = rest and not select.select([source], [], [], _IDLE_SECONDS)[0]
        chunk = b"" if idle else os.read(source, _CHUNK)
        end = len(rest) if idle or not chunk or len(rest) >= _CHUNK else 0
        rest += chunk
        end = max(end, rest.rfind(b"\n") + 1, rest.rfind(b"\r") + 1)
        for line in rest[:end].splitlines(keepends=True):
            output.write(_redacted(line, redact))
        rest = rest[end:]
        if not chunk and not idle:
            return


class _Output:
    """A file that may have no room: what does not fit is counted, and the count is written once there is room again."""

    def __init__(self, file: str) -> None:
        self._file = _open(file)
        self._lost = 0

    def write(self, line: bytes) -> None:
        note = f"[{self._lost} bytes are missing here: the disk was full]\n".encode() if self._lost else b""
        try:
            written = os.write(self._file, note + line)
        except OSError:
            self._lost += len(line)
        else:
            self._lost = max(0, len(note + line) - written)


def _open(file: str) -> int:
    return open_regular(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, own=True, device=True)


def _redacted(line: bytes, redact: Callable[[str], str]) -> bytes:
    text = line.decode(errors="replace")
    body = text.rstrip("\r\n")
    try:
        return (redact(body) + text[len(body) :]).encode(errors="replace")
    except Exception:  # noqa: BLE001  # one odd line must not end the output of all that follow
        return b"[a line that could not be masked]\n"


def _main(arguments: Sequence[str]) -> None:
    from phasebus.telemetry.redaction import LineRedactor, learn_environment

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    learn_environment(os.environ)
    copy_lines(sys.stdin.fileno(), arguments[0], LineRedactor(), opened=_detach)


def _detach() -> None:
    """Go on as a process that belongs to none of the engine, and ends after the last of them."""
    if os.fork():
        os._exit(0)


if __name__ == "__main__":
    _main(sys.argv[1:])
