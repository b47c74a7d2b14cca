"""One file on its way: what happens in a worker thread, from the first byte to the final name."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from phasebus.initializer.downloads.checks import hasher, safetensors_problem
from phasebus.initializer.downloads.errors import CorruptError, DownloadError, StoppedError, TransferError
from phasebus.initializer.downloads.partial import Partial
from phasebus.initializer.downloads.paths import STATE, free_bytes, target_of
from phasebus.initializer.downloads.record import Record
from phasebus.initializer.downloads.sources.protocol import BLOCK, Body, RemoteFile, Source


class Transfer:
    """Brings one file to its place. `attempt` is for one thread at a time; the attributes may be read from any.

    Args:
        source: Where it comes from.
        file: What the source lists.
        folder: The destination.
        record: What of the destination was checked already.

    Attributes:
        file: What the source lists.
        total: Its size in bytes; None while that is unknown.
        done: How many bytes of it are here.
        fetched: How many bytes came over the network, those of failed tries included.
        resumed: How many bytes an earlier process had left.
        hit: Whether it was here already, whole.
    """

    def __init__(self, source: Source, file: RemoteFile, folder: Path, record: Record) -> None:
        self._source = source
        self._folder = folder
        self._record = record
        self._partial = Partial(folder / STATE, file)
        self._target = target_of(folder, file.name)
        self._guard = threading.Lock()
        self._there = True
        self._stopped = False
        self._running = False
        self._body: Body | None = None
        self.file = file
        self.total = file.size
        self.done = 0
        self.fetched = 0
        self.resumed = 0
        self.hit = False

    def look(self) -> int:
        """See what is here already; return how many bytes will have to be written, as far as is known."""
        try:
            status = self._target.stat()
        except OSError:
            status, self._there = None, False
        if status is not None and self._record.knows(self.file, status):
            self.hit, self.done, self.total = True, status.st_size, status.st_size
            return 0
        return max(0, (self.file.size or 0) - self._partial.kept())

    def attempt(self) -> None:
        """Try to bring the file to its place.

        Raises:
            TransferError: It failed, and may be tried again.
            DownloadError: It failed for good.
            StoppedError: `stop` was called.
        """
        with self._writing():
            self._running = True
        try:
            self._attempt()
        except CorruptError:
            with self._writing():
                self._partial.discard()
            self.done = self.resumed = 0
            raise
        except TransferError:
            self._check_stopped()
            raise
        except OSError as error:
            raise self._disk_failure(error) from error
        finally:
            self._leave()

    def stop(self) -> None:
        """Have `attempt` end soon. When this returns, what came is written, and nothing more will be."""
        with self._guard:
            if self._partial.is_open and not self._stopped:
                with suppress(OSError):
                    self._partial.flush()
            self._stopped = True
            if self._body is not None:
                self._body.stop()

    def close(self) -> None:
        """Close the file in the making, and keep it; a thread that still runs does it when it ends."""
        with self._guard:
            self._stopped = True
            if not self._running:
                self._partial.close()

    def _attempt(self) -> None:
        if self._found():
            return
        if not self._partial.is_open:
            with self._writing():
                if "/" in self.file.name:
                    self._target.parent.mkdir(parents=True, exist_ok=True)
                    target_of(self._folder, self.file.name)  # once more: the folders above it exist now
                self._partial.open()
            self._partial.take_in(self._check_stopped)
            self.done = self.resumed = self._partial.size
        if self.total is None or self.done < self.total or not self.total:
            self._receive()
        self._check()
        self._place()

    def _found(self) -> bool:
        """Return whether the file is there, not checked since the machine started, but with the digest it should have."""
        digest = self._record.digest_of(self.file)
        if not self._there or self._partial.is_open or digest is None:
            return False
        try:
            descriptor = os.open(self._target, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return False
        try:
            status = os.fstat(descriptor)
            if status.st_size != (self.file.size if self.file.size is not None else status.st_size):
                return False
            seen = hasher(digest.algorithm, status.st_size)
            buffer = memoryview(bytearray(BLOCK))
            while count := os.readv(descriptor, [buffer]):
                self._check_stopped()
                seen.update(buffer[:count])
                self.done += count
            self.hit = seen.hexdigest() == digest.value
        finally:
            os.close(descriptor)
        if self.hit:
            self.total = status.st_size
            self._record.add(self.file, status, digest)
        else:
            self.done = 0
        return self.hit

    def _receive(self) -> None:
        """Get the bytes that are missing."""
        partial = self._partial
        # with a digest, a part of another file is found out in the end; without, a validator has to tell at once
        trusted = self.file.digest is not None
        start = partial.size if trusted or partial.validator is not None else 0
        body = self._source.open(self.file, start, None if trusted else partial.validator)
        with self._guard:
            self._body = body
        self._check_stopped()
        if self.total is None:
            self.total = body.size
        elif body.size is not None and body.size != self.total:
            raise CorruptError(f"its size is {body.size} bytes, expected {self.total}")
        if body.start == 0:
            with self._writing():
                partial.restart(body.validator)
            self.done = self.resumed = 0
        elif not trusted and body.validator != partial.validator:
            raise CorruptError("it was replaced while it was being fetched")
        try:
            while block := body.receive(partial.room):
                with self._writing():
                    partial.add(block)
                self.done = partial.size
                self.fetched += len(block)
                if self.total is not None and self.done > self.total:
                    raise CorruptError(f"its size is {self.done} bytes or more, expected {self.total}")
        finally:
            self._flush()
        if self.total is not None and self.done < self.total:
            raise TransferError(f"it ended after {self.done} bytes, expected {self.total}")

    def _flush(self) -> None:
        with self._guard:
            if not self._stopped:
                self._partial.flush()

    def _check(self) -> None:
        """Compare what came with what was announced."""
        named, got = self.file.digest, self._partial.digest()
        if named is not None and got != named:
            raise CorruptError(f"its {named.algorithm} is {got.value}, expected {named.value}")
        if self.file.name.endswith(".safetensors"):
            problem = safetensors_problem(self._partial.descriptor, self._partial.size)
            if problem is not None:
                raise CorruptError(problem)

    def _place(self) -> None:
        """Give the file its final name."""
        with self._writing():
            self._record.add(self.file, os.fstat(self._partial.descriptor), self._partial.digest())
            self._partial.become(self._target)
            self._partial.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Change something on the disk: never once `stop` has returned, when another process may have taken over."""
        with self._guard:
            if self._stopped:
                raise StoppedError
            yield

    def _check_stopped(self) -> None:
        if self._stopped:
            raise StoppedError

    def _leave(self) -> None:
        with self._guard:
            body, self._body = self._body, None
            self._running = False
            if self._stopped:
                self._partial.close()
        if body is not None:
            body.close()

    def _disk_failure(self, error: OSError) -> DownloadError:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            missing = (self.total or self.done) - self.done
            return DownloadError(
                f"the disk of {self._folder} is full: {self.file.name} needs {missing} bytes more, and "
                f"{free_bytes(self._folder)} are free; free some, or choose another destination"
            )
        return DownloadError(f"{self._target} cannot be written: {error.strerror or error}")
