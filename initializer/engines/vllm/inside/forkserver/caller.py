"""What a spawned process has from the process that starts it, and a forked one from its server: carried over by value."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_LIMITS = tuple(value for name, value in sorted(vars(resource).items()) if name.startswith("RLIMIT_"))


@dataclass(frozen=True, slots=True)
class Caller:
    """The settings of a process that starts another one.

    Attributes:
        environment: The environment variables.
        limits: The soft and the hard limit of each resource.
        cpus: The CPUs it may run on.
        umask: The permissions that new files do not get.
        mask: The signals that are blocked.
        ignored: The signals that are ignored.
        priority: The nice value.
    """

    environment: Mapping[str, str]
    limits: Mapping[int, tuple[int, int]]
    cpus: frozenset[int]
    umask: int
    mask: frozenset[int]
    ignored: frozenset[int]
    priority: int

    @classmethod
    def this_process(cls) -> Caller:
        """Return the settings of this process."""
        return cls(
            environment=dict(os.environ),
            limits={each: resource.getrlimit(each) for each in _LIMITS},
            cpus=frozenset(os.sched_getaffinity(0)),
            umask=_umask(),
            mask=frozenset(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
            ignored=frozenset(int(each) for each in signal.valid_signals() if signal.getsignal(each) == signal.SIG_IGN),
            priority=os.getpriority(os.PRIO_PROCESS, 0),
        )

    def apply(self) -> None:
        """Give this process these settings, and random states of its own.

        A setting that the system refuses, such as a higher limit, is left as it is.
        """
        os.environ.clear()
        os.environ.update(self.environment)
        for each, limits in self.limits.items():
            if resource.getrlimit(each) != limits:
                with contextlib.suppress(OSError, ValueError):
                    resource.setrlimit(each, limits)
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, self.cpus)
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, self.priority)
        os.umask(self.umask)
        for number in signal.valid_signals():
            with contextlib.suppress(OSError, ValueError):
                if int(number) in self.ignored:
                    signal.signal(number, signal.SIG_IGN)
                elif signal.getsignal(number) == signal.SIG_IGN:
                    signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)
        random.seed()
        if (numpy := sys.modules.get("numpy")) is not None:
            numpy.random.seed()  # torch's generators start with a constant in every process


def _umask() -> int:
    """Return the umask; setting it to learn it would change it for the files of other threads as well."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    umask = os.umask(0o077)  # before Linux 4.7
    os.umask(umask)
    return umask
