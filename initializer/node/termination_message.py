"""The reason of a failed start as Kubernetes' termination message, which `kubectl describe pod` shows.

Source: Kubernetes documentation, "Determine the Reason for Pod Failure": a file, /dev/termination-log by default, with at
most 4096 bytes of text, which the kubelet reads when the container ends.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

MOST_BYTES: Final = 4096
"""Maximum size of a termination message, in bytes; the kubelet truncates a longer one."""

_VARIABLE: Final = "PHASEBUS_TERMINATION_LOG"
_DEFAULT_PATH: Final = "/dev/termination-log"


def in_kubernetes(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether this process runs in a container of Kubernetes."""
    return bool(environment.get("KUBERNETES_SERVICE_HOST"))


def write_termination_message(reason: str, environment: Mapping[str, str] = os.environ) -> None:
    """Write `reason` as one line, unless the container has written a message of its own.

    The file is the one that PHASEBUS_TERMINATION_LOG names, for a pod with another `terminationMessagePath`; without the
    variable it is /dev/termination-log in Kubernetes, and there is none elsewhere. Nothing is written if the file does not
    exist, is a link or no regular file, or cannot be written.

    Args:
        reason: The reason, free of secrets. Line breaks become spaces, and it is cut to `MOST_BYTES`.
        environment: Where the variables are read from.
    """
    path = environment.get(_VARIABLE) or (_DEFAULT_PATH if in_kubernetes(environment) else "")
    if not path:
        return
    with suppress(OSError, ValueError):  # ValueError: a path with a null character
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            if stat.S_ISREG(found.st_mode) and found.st_size == 0:
                os.write(descriptor, _one_line(reason))
        finally:
            os.close(descriptor)


def _one_line(text: str) -> bytes:
    encoded = " ".join(text.split()).encode("utf-8", "replace")
    if len(encoded) > MOST_BYTES:
        encoded = encoded[: MOST_BYTES - 3].decode("utf-8", "ignore").encode() + "…".encode()
    return encoded
