"""What imports have left behind that all forks of a process would share: each command of a server has to have its own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class SharedState:
    """Connections, open files, memory and temporary folders that the imports of this process have made."""

    def __init__(self) -> None:
        self._folders: list[str] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record the temporary folders that are made: the first command that ends would remove them."""
        make = tempfile.mkdtemp

        def make_and_record(*args: Any, **kwargs: Any) -> Any:
            folder = make(*args, **kwargs)
            self._folders.append(os.fsdecode(folder))
            return folder

        tempfile.mkdtemp = make_and_record
        try:
            yield
        finally:
            tempfile.mkdtemp = make

    def found(self, own: Collection[int]) -> str | None:
        """Return what the imports have made; None if there is nothing.

        Args:
            own: The numbers of the descriptors that are not the imports'.
        """
        for number in sorted(int(path.name) for path in Path("/proc/self/fd").iterdir()):
            if number > 2 and number not in own:  # the standard streams
                with contextlib.suppress(OSError):  # the listing's own
                    mode, flags = os.fstat(number).st_mode, fcntl.fcntl(number, fcntl.F_GETFL)
                    if stat.S_ISSOCK(mode):
                        return "the imports have opened a connection"
                    if stat.S_ISREG(mode) and flags & os.O_ACCMODE and not flags & os.O_APPEND:
                        return (
                            f"the imports have opened a file for writing ({Path(f'/proc/self/fd/{number}').readlink()})"
                        )
        for line in Path("/proc/self/maps").read_text().splitlines():
            if line.split()[1].startswith("rw") and line.split()[1].endswith("s"):
                return f"the imports have made shared memory, or a lock of processes ({line.split(maxsplit=5)[-1]})"
        if folders := [folder for folder in self._folders if os.path.isdir(folder)]:
            return f"the imports have made a temporary folder ({folders[0]})"
        return None
