"""The protocol between a fork server that stays and its clients: small JSON objects, with descriptors beside them.

A request's body may be large (an environment), so it is passed in a file in memory. Nothing that arrives is unpickled.
"""

from __future__ import annotations

import array
import json
import os
import select
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

MAX_DESCRIPTORS: Final = 250
_MAX_BODY_BYTES: Final = 16_000_000
_MAX_MESSAGE_BYTES: Final = 65_536


class MessageError(Exception):
    """Raised when no valid message arrives."""


def send(connection: socket.socket, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Send a message; a receiver that is gone, or does not receive, is no error."""
    content = json.dumps(message).encode()[:_MAX_MESSAGE_BYTES]
    try:
        socket.send_fds(connection, [content], list(descriptors), socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
    except OSError:
        return


def receive(connection: socket.socket, deadline: float) -> tuple[dict[str, Any], list[int]]:
    """Return the next message and its descriptors, which the caller closes.

    Args:
        connection: Where it arrives.
        deadline: When to give up, on the monotonic clock.

    Raises:
        MessageError: None arrived in time, the sender has gone, or it is no message.
    """
    waiting = select.poll()
    waiting.register(connection, select.POLLIN)
    if not waiting.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise MessageError("the fork server does not answer")
    content, descriptors = _receive(connection)
    try:
        if not content:
            raise MessageError("the fork server has ended")
        message = json.loads(content)
        if not isinstance(message, dict):
            raise MessageError("a message is no object")
    except (ValueError, RecursionError, MessageError) as error:
        for descriptor in descriptors:
            os.close(descriptor)
        raise error if isinstance(error, MessageError) else MessageError("a message is no JSON") from error
    return message, descriptors


def has_gone(connection: socket.socket) -> bool:
    """Return whether the other end of a connection is closed."""
    waiting = select.poll()
    waiting.register(connection, select.POLLRDHUP)
    return bool(waiting.poll(0))


def _receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    numbers = array.array("i")
    try:
        content, ancillary, *_ = connection.recvmsg(
            _MAX_MESSAGE_BYTES, socket.CMSG_LEN(MAX_DESCRIPTORS * numbers.itemsize), socket.MSG_CMSG_CLOEXEC
        )
    except OSError as error:
        raise MessageError(f"the connection has ended: {error.strerror}") from error
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    return content, list(numbers)


def body_file(body: Mapping[str, Any]) -> int:
    """Return the descriptor of a file in memory with `body`."""
    descriptor = os.memfd_create("phasebus request")
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(json.dumps(body).encode())
    return descriptor


def read_body(descriptor: int) -> dict[str, Any]:
    """Return the object in a file that `body_file` has made.

    Raises:
        MessageError: It is too large, or no object.
    """
    content = os.pread(descriptor, _MAX_BODY_BYTES + 1, 0)
    if len(content) > _MAX_BODY_BYTES:
        raise MessageError("the request is too large")
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise MessageError("the request is no JSON") from error
    if not isinstance(body, dict):
        raise MessageError("the request is no object")
    return body
