"""The messages of a kept fork server: what cannot be read is an error."""

from __future__ import annotations

import os
import socket
import time

import pytest

from phasebus.initializer.engines.vllm.inside.forkserver.kept import messages

UNREADABLE = [b"", b"\xff", b"[]", b"[" * 50_000]


@pytest.mark.parametrize("content", UNREADABLE)
def test_message_that_is_no_object_is_an_error_and_its_descriptors_are_closed(content: bytes) -> None:
    client, server = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reader, writer = os.pipe()
    with client, server:
        socket.send_fds(client, [content], [writer])
        os.close(writer)
        with pytest.raises(messages.MessageError):
            messages.receive(server, time.monotonic() + 30)
    os.set_blocking(reader, False)
    assert os.read(reader, 1) == b""  # no writing end is open
    os.close(reader)


@pytest.mark.parametrize("content", UNREADABLE)
def test_body_that_is_no_object_is_an_error(content: bytes) -> None:
    descriptor = os.memfd_create("request")
    os.write(descriptor, content)
    with pytest.raises(messages.MessageError):
        messages.read_body(descriptor)
    os.close(descriptor)
