"""Where a fork server that stays is found: a socket and a lock in a private folder, one pair for each environment of Python.

The key of a pair has what a fork has from its server and cannot change: the interpreter, the namespaces, the control group,
the capabilities, the memory policy. The lock belongs to the server while it accepts requests, so there is one server at most;
the kernel releases it at any end.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import stat
import struct
import sys
from pathlib import Path
from typing import Final

from phasebus.initializer.engines.vllm.inside.forkserver.safety import missing_call
from phasebus.telemetry.files import open_regular
from phasebus.telemetry.folders import runtime_folder

_NAMESPACES: Final = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
_INHERITED: Final = ("Cap", "NoNewPrivs", "Seccomp", "Mems_allowed_list")
_CREDENTIALS: Final = struct.Struct("3i")  # ucred: pid, uid, gid


class AddressError(Exception):
    """Raised when the folder cannot be used, or no server can run here."""


def key() -> str:
    """Return the key of the server that this process may use."""
    facts = [sys.executable, sys.prefix, str(os.getuid()), str(os.getgid()), str(sorted(os.getgroups()))]
    facts.extend(_link(Path("/proc/self/ns", name)) for name in _NAMESPACES)
    facts.extend(_text(Path("/proc/self/cgroup")).splitlines())
    facts.extend(line for line in _text(Path("/proc/self/status")).splitlines() if line.startswith(_INHERITED))
    facts.append(_link(Path("/proc/self/root")))
    facts.append(_text(Path("/proc/self/personality")))
    stack = next((line for line in _text(Path("/proc/self/numa_maps")).splitlines() if "stack" in line), "- -")
    facts.append(stack.split()[1])  # the memory policy, as numactl sets it
    return hashlib.sha256("\0".join(facts).encode("utf-8", "surrogateescape")).hexdigest()[:16]


class Address:
    """The socket and the lock of one key.

    Args:
        folder: The folder; by default the user's.
        create: Whether it is made if it does not exist.

    Raises:
        AddressError: There is no folder, it cannot be made, or others may write to it; or no server can run here.
    """

    def __init__(self, folder: Path | None = None, *, create: bool = True) -> None:
        if (reason := missing_call()) is not None:
            raise AddressError(reason)
        self.folder = folder = folder or runtime_folder()
        try:
            if create:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder = os.open(folder, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise AddressError(f"{folder}: {error.strerror}") from error
        status = os.fstat(self._folder)
        if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            os.close(self._folder)
            raise AddressError(f"{folder} may be used by other users; make it private (chmod 700)")
        self._name = f"forkserver-{key()}"
        # by its descriptor: a socket's path is limited to 107 bytes, and the folder stays the checked one
        self._base = f"/proc/self/fd/{self._folder}/{self._name}"
        self.log = folder / f"{self._name}.log"

    def close(self) -> None:
        """Release the folder."""
        os.close(self._folder)

    def connect(self) -> socket.socket | None:
        """Return a connection to the server; None if there is none.

        Raises:
            AddressError: The server is another user's.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.connect(f"{self._base}.sock")
        except OSError:
            connection.close()
            return None
        if not is_same_user(connection):
            connection.close()
            raise AddressError("the fork server is another user's")
        return connection

    def lock(self) -> int | None:
        """Return a descriptor of the lock, which is held while the descriptor or a copy is open; None if a server holds it."""
        descriptor = open_regular(f"{self._base}.lock", os.O_RDWR | os.O_CREAT, own=True)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:  # a file system without locks
            os.close(descriptor)
            raise
        return descriptor

    def is_listening(self) -> bool:
        """Return whether a server, if one holds the lock, accepts requests."""
        return Path(f"{self._base}.sock").exists()

    def is_importing(self) -> bool:
        """Return whether the server has not imported yet; it writes its state into the file of its lock."""
        return not self._state().endswith(" imported")

    def importing_process(self) -> int | None:
        """Return the id of a server's process that still imports, and cannot be asked anything meanwhile; None without one."""
        state = self._state()
        return int(state) if state.isdigit() and Path("/proc", state).exists() else None

    def _state(self) -> str:
        return _text(Path(f"{self._base}.lock"))

    def write_state(self, lock: int, *, imported: bool) -> None:
        """Write the state of this process, the server, into the file of its lock."""
        os.pwrite(lock, f"{os.getpid()}{' imported' if imported else ''}".encode(), 0)

    def listen(self) -> socket.socket:
        """Return the listening socket of a new server; the lock is held."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        name, beginning = Path(f"{self._base}.sock"), Path(f"{self._base}.new")
        try:
            name.unlink(missing_ok=True)
            beginning.unlink(missing_ok=True)
            listener.bind(str(beginning))
            beginning.chmod(0o600)
            listener.listen(128)
            beginning.rename(name)  # a socket with the name is one that can be connected to
        except OSError:  # a file system without sockets, or without space
            listener.close()
            raise
        return listener

    def remove(self) -> None:
        """Remove the socket's name; the lock is held."""
        Path(f"{self._base}.sock").unlink(missing_ok=True)


def is_same_user(connection: socket.socket) -> bool:
    """Return whether the process at the other end of `connection` is the same user's (SO_PEERCRED)."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return bool(_CREDENTIALS.unpack(credentials)[1] == os.geteuid())


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
