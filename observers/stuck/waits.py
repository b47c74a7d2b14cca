"""What a Python stack waits for, by the functions that are known to wait.

Read from CPython 3.11 to 3.13, PyTorch 2.13, vLLM 0.32 and huggingface_hub 1.
"""

from __future__ import annotations

import linecache
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["peer", "process", "thread", "import", "dns", "network", "file lock", "disk", "event loop", "code"]

_FRAME: Final = re.compile(r'^\s*File "(?P<file>[^"]*)", line (?P<line>\d+) in (?P<function>.+?)$', re.MULTILINE)
_LIBRARY: Final = re.compile(r"^<frozen |/lib/python3\.\d+/(?!site-packages|dist-packages)")
_NEAR: Final = 3
_MAX_LINE: Final = 120
_LOOKED_AT: Final = 14
"""How many innermost frames decide."""


@dataclass(frozen=True, slots=True)
class Wait:
    """What a thread waits for.

    Attributes:
        kind: What sort of thing it is.
        text: What it is, for people, with the function.
    """

    kind: Kind
    text: str

    @property
    def is_for_others(self) -> bool:
        """Whether it waits for other processes of the engine, so that one of those may be the cause."""
        return self.kind in ("peer", "process")


_WAITS: Final[Sequence[tuple[str, str, Kind, str]]] = (
    (r"torch/distributed/", r".*", "peer", "waits for the other ranks"),
    (r"shm_broadcast\.py$", r"acquire_(read|write)|dequeue|enqueue|wait_until_ready", "process", "waits for a message"),
    (r"vllm/distributed/", r".*", "peer", "waits for the other ranks"),
    (r"multiproc_executor\.py$", r"wait_for_ready|collective_rpc|get_response", "process", "waits for its workers"),
    (
        r"v1/engine/(utils|core_client)\.py$",
        r"wait_for_engine_startup|.*startup.*",
        "process",
        "waits for engine cores",
    ),
    (
        r"importlib\._bootstrap",
        r"acquire|_lock_unlock_module|_get_module_lock|__enter__",
        "import",
        "waits for an import",
    ),
    (r"socket\.py$", r"getaddrinfo|gethostby\w+|getfqdn|getnameinfo", "dns", "waits for the name of a host (DNS)"),
    (r"(socket|connection|sock)\.py$", r"create_connection|connect\w*", "network", "waits for a connection"),
    (r"httpcore2?/_backends/sync\.py$", r"read|write", "network", "waits for data from the network"),
    (r"(socket|ssl)\.py$", r"recv\w*|read\w*|accept|send\w*", "network", "waits for data from the network"),
    (r"filelock/", r".*acquire", "file lock", "waits for the lock of a file"),
    (r"torch/utils/file_baton\.py$", r"wait", "file lock", "waits for the lock of a file, which may be a stale one,"),
    (r"ray/_private/worker\.py$", r"get|get_objects|wait", "process", "waits for Ray"),
    (
        r"multiprocessing/(connection|popen_\w+|process|queues|synchronize)\.py$",
        r".*",
        "process",
        "waits for a process",
    ),
    (r"subprocess\.py$", r"wait|_wait|_try_wait|communicate|_communicate|run", "process", "waits for a process"),
    (r"zmq/", r"poll|recv\w*|send\w*", "process", "waits for a message of another process"),
    (r"(threading|queue|concurrent/futures/_base)\.py$", r".*", "thread", "waits for another thread"),
    (r"selectors\.py$", r"select", "event loop", "waits in its event loop"),
)


def wait_of(stacks: Sequence[str]) -> Wait | None:
    """Return what the first of the stacks waits for; None without a stack.

    Frames are read from the innermost one on. A function that is known to wait decides; without one, the innermost function
    is named.
    """
    frames = list(_FRAME.finditer(stacks[0])) if stacks else []
    if not frames:
        return None
    for file, function, kind, text in _WAITS:
        for at, frame in enumerate(frames[:_LOOKED_AT]):
            if re.search(file, frame["file"]) and re.fullmatch(function, frame["function"].split(".")[-1]):
                if kind in ("thread", "event loop", "process", "network") and at > _NEAR:
                    continue  # such a function also calls what works
                return Wait(kind, f"{text} in {_chain(frames[at:], of_user=kind == 'import')}")
    line = linecache.getline(frames[0]["file"], int(frames[0]["line"])).strip()[:_MAX_LINE]
    return Wait("code", f"is in {_named(frames[0])}{f': {line}' if line else ''}")


def _chain(frames: Sequence[re.Match[str]], *, of_user: bool) -> str:
    """Return a function that waits, and the first one outside of Python's library that has called it."""
    caller = next((frame for frame in frames if not _LIBRARY.search(frame["file"])), None)
    if caller is None or caller is frames[0] or of_user:
        return _named(caller or frames[0])
    return f"{_named(frames[0])}, called by {_named(caller)}"


def _named(frame: re.Match[str]) -> str:
    file = "/".join(frame["file"].split("/")[-3:])
    return f"{frame['function']} ({file}:{frame['line']})"
