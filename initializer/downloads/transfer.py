"""The transfer of one file, in a worker thread: from the first byte to the final name."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

from phasebus.initializer.downloads.checks import Digest, content_problem
from phasebus.initializer.downloads.errors import CorruptError, DownloadError, StoppedError, TransferError
from phasebus.initializer.downloads.names import target_path
from phasebus.initializer.downloads.partial import PartialFile
from phasebus.initializer.downloads.paths import ANOTHER_FOLDER, STATE, free_bytes
from phasebus.initializer.downloads.present import earlier_copies, link, matching_status
from phasebus.initializer.downloads.protocol import Body, RemoteFile, Source
from phasebus.initializer.downloads.record import Record


class Transfer:
    """Transfers one file. `attempt` runs in one thread at a time; any thread may read the attributes.

    Args:
        source: The source of the file.
        file: The file in the listing of the source.
        folder: The destination.
        record: The verified files of the destination.
        partials: The folder for partial files; None if nothing may be written.
        earlier: Folders with other versions of the files; see `Listing.earlier`.

    Attributes:
        file: The file in the listing of the source.
        total: Its size in bytes; None while it is unknown.
        done: The number of bytes present.
        fetched: The number of bytes received over the network, including those of failed attempts.
        resumed: The number of bytes that an earlier process had downloaded.
        hit: Whether the file was present and complete.
    """

    def __init__(
        self,
        source: Source,
        file: RemoteFile,
        folder: Path,
        record: Record,
        partials: Path | None,
        earlier: Sequence[Path] = (),
    ) -> None:
        self._source = source
        self._earlier = earlier
        self._folder = folder
        self._record = record
        self._may_write = partials is not None
        self._target = target_path(folder, file.name)
        self._partial = PartialFile(partials or folder / STATE, file)
        self._guard = threading.Lock()
        self._present = True
        self._stopped = False
        self._running = False
        self._body: Body | None = None
        self.file = file
        self.total = file.size
        self.done = 0
        self.fetched = 0
        self.resumed = 0
        self.hit = False

    def inspect(self) -> int:
        """Check which bytes are present, without writing; return the number of missing bytes, as far as it is known."""
        try:
            status = self._target.stat()
        except OSError:
            status, self._present = None, False
        if status is not None and self._record.is_verified(self.file, status):
            self.hit, self.done, self.total = True, status.st_size, status.st_size
            return 0
        if any(earlier_copies(self.file, self._earlier)):
            return 0  # if it is another file, the space is checked when it is written
        return max(0, (self.file.size or 0) - self._partial.resumable_bytes())

    def attempt(self) -> None:
        """Attempt to complete the file.

        Raises:
            TransferError: It failed, and a retry may succeed.
            DownloadError: It failed, and a retry would not help.
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
            raise self._disk_error(error) from error
        finally:
            self._leave()

    def stop(self) -> None:
        """Make `attempt` end soon. When this returns, the received bytes are written, and nothing is written afterwards."""
        with self._guard:
            if self._partial.is_open and not self._stopped:
                with suppress(OSError):
                    self._partial.flush()
            self._stopped = True
            body = self._body
        if body is not None:
            body.stop()
        else:
            self._source.close()  # the thread may be waiting for the response

    def close(self) -> None:
        """Close the partial file without deleting it. If a thread still runs, it closes the file when it ends."""
        with self._guard:
            self._stopped = True
            if not self._running:
                self._partial.close()

    def _attempt(self) -> None:
        if self._found():
            return
        if not self._may_write:
            raise self._read_only_error("it cannot be locked")
        if not self._partial.is_open:
            with self._writing():
                if "/" in self.file.name:
                    self._target.parent.mkdir(parents=True, exist_ok=True)
                    target_path(self._folder, self.file.name)  # checked again: the folders above it exist now
            if self._linked():
                return
            with self._writing():
                self._partial.open()
            self._partial.hash_existing(self._check_stopped)
            self.done = self.resumed = self._partial.size
        if self.total is None or self.done < self.total or not self.total:
            self._receive()
        self._verify()
        self._place()

    def _found(self) -> bool:
        """Return whether the file is present with the expected digest, by reading it."""
        digest = self._record.expected_digest(self.file)
        if not self._present or self._partial.is_open or digest is None:
            return False
        status = matching_status(self._target, self.file, digest, self._count_read)
        if status is None:
            self.done = 0
        else:
            self._use(status, digest)
        return self.hit

    def _linked(self) -> bool:
        """Return whether another version of the model has the file; then it is linked."""
        for folder, path in earlier_copies(self.file, self._earlier):
            digest = cast("Digest", self.file.digest)
            self.done = 0
            try:
                status = matching_status(path, self.file, digest, self._count_read, Record(folder))
            except OSError:  # of the disk: the file can be downloaded
                continue
            if status is not None:
                with suppress(OSError), self._writing():
                    link(path, self._partial.path.with_suffix(".link"), self._target, status)
                    self._partial.remove()
                    self._use(status, digest)
                    return True
                break  # no links can be made: another copy would be read in vain
        self.done = 0
        return False

    def _count_read(self, count: int) -> None:
        self._check_stopped()
        self.done += count

    def _use(self, status: os.stat_result, digest: Digest) -> None:
        """Count the file as present, with this `digest`."""
        self.hit = True
        self.done = self.total = status.st_size
        self._record.add(self.file, status, digest)

    def _receive(self) -> None:
        """Receive the missing bytes."""
        partial = self._partial
        # With a digest, bytes of another version are detected at the end; without one, only a validator detects them.
        has_digest = self.file.digest is not None
        start = partial.size if has_digest or partial.validator is not None else 0
        body = self._opened(start, None if has_digest else partial.validator)
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
        elif body.start != start:
            raise TransferError(
                f"the source sends the bytes from {body.start} on, requested were those from {start} on"
            )
        elif not has_digest and body.validator != partial.validator:
            raise CorruptError("it was replaced during the download")
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

    def _opened(self, start: int, validator: str | None) -> Body:
        """Return the content of the file from the source; an error that a retry does not change names the file."""
        try:
            return self._source.open(self.file, start, validator)
        except DownloadError as error:
            raise DownloadError(f"{self.file.name} of {self._source.display}: {error}") from error

    def _flush(self) -> None:
        with self._guard:
            if not self._stopped:
                self._partial.flush()

    def _verify(self) -> None:
        """Compare the received bytes with the listing."""
        expected, found = self.file.digest, self._partial.digest()
        if expected is not None and found != expected:
            raise CorruptError(f"its {expected.algorithm} is {found.value}, expected {expected.value}")
        problem = content_problem(self.file.name, self._partial.descriptor, self._partial.size)
        if problem is not None:
            raise CorruptError(problem)

    def _place(self) -> None:
        """Give the file its final name."""
        with self._writing():
            status, digest = os.fstat(self._partial.descriptor), self._partial.digest()
            self._partial.move_to(self._target)
            self._record.add(self.file, status, digest)
            self._partial.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Allow the block to write to the disk, unless `stop` was called: another process may then hold the lock."""
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

    def _disk_error(self, error: OSError) -> DownloadError:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            missing, free = (self.total or self.done) - self.done, free_bytes(self._folder)
            return DownloadError(
                f"the disk of {self._folder} is full: {self.file.name} needs {missing} bytes more, and "
                f"{'an unknown number' if free is None else free} are free; free some, or {ANOTHER_FOLDER}"
            )
        return self._read_only_error(error.strerror or str(error))

    def _read_only_error(self, cause: str) -> DownloadError:
        return DownloadError(
            f"{self.file.name} is missing or outdated in {self._folder}, which cannot be written: {cause}; {ANOTHER_FOLDER}"
        )
