from __future__ import annotations

import json
import socket
import socketserver
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from itertools import pairwise
from threading import Thread
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasebus.initializer.cluster.hub import start
from phasebus.initializer.cluster.hub import wire as wire_module
from phasebus.initializer.cluster.hub.actor import HubActor
from phasebus.initializer.cluster.hub.start import HubConnection
from phasebus.initializer.cluster.hub.wire import (
    MAX_PARCEL_BYTES,
    Address,
    Parcel,
    Receiver,
    RefusedError,
    Wire,
    _parse_parcel,
)


class Journals:
    """Receives parcels that begin where the last one ended."""

    def __init__(self) -> None:
        self.received: dict[str, bytes] = {}
        self.parcels: list[Parcel] = []

    def __call__(self, parcel: Parcel, lines: bytes) -> int:
        if lines == b"unreadable\n":
            raise ValueError("not JSON")
        self.parcels.append(parcel)
        had = self.received.get(parcel.node, b"")
        if parcel.offset == len(had):
            self.received[parcel.node] = had + lines
        return len(self.received.get(parcel.node, b""))


@pytest.fixture
def journals() -> Journals:
    return Journals()


@pytest.fixture
def receiver(journals: Journals) -> Iterator[Receiver]:
    receiver = Receiver(journals, "127.0.0.1")
    receiver.start()
    yield receiver
    receiver.close()


def test_lines_of_any_size_arrive_whole_and_in_order(receiver: Receiver, journals: Journals) -> None:
    lines = b"x" * (MAX_PARCEL_BYTES - 1) + b"\n"
    with closing(Wire(receiver.address)) as one, closing(Wire(receiver.address)) as two:
        assert one.send(Parcel("node-0", 0, 3, "10.0.0.1:9464"), lines) == MAX_PARCEL_BYTES
        assert two.send(Parcel("node-1", 0), b"") == 0
        assert one.send(Parcel("node-0", MAX_PARCEL_BYTES, 3), b"more\n") == MAX_PARCEL_BYTES + 5
    assert journals.received["node-0"] == lines + b"more\n"
    assert journals.parcels[:2] == [Parcel("node-0", 0, 3, "10.0.0.1:9464"), Parcel("node-1", 0, 0, None)]


def test_a_rejected_parcel_raises_its_reason_and_the_wire_stays_usable(receiver: Receiver, journals: Journals) -> None:
    with closing(Wire(receiver.address)) as wire:
        with pytest.raises(RefusedError, match="the journal of node-0: ValueError: not JSON"):
            wire.send(Parcel("node-0", 0), b"unreadable\n")
        assert wire.send(Parcel("node-0", 0), b"{}\n") == 3


def test_a_parcel_that_arrives_in_pieces_is_received_once_it_is_whole(receiver: Receiver, journals: Journals) -> None:
    whole = receiver.address.secret.encode() + b'\n["node-0", 0, 0, null, 6]\n{}\n{}\n'
    cuts = [0, 5, 33, 40, len(whole) - 3, len(whole)]
    with socket.create_connection(receiver.address[:2], timeout=60) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for begin, end in pairwise(cuts):
            raw.sendall(whole[begin:end])
        assert raw.recv(100) == b"6\n"
    assert journals.received["node-0"] == b"{}\n{}\n"


@pytest.mark.parametrize(
    "sent",
    [
        b"a guess\n",
        b"{secret}\nGET / HTTP/1.1\r\n\r\n",
        b'{secret}\n["node-0"]\n',
        b'{secret}\n["node-0", 0, 0, null, -1]\n',
        b'{secret}\n["node-0", 0, 0, null, 999999999]\n',
        b'{secret}\n["node-0", 0, 0, null, "6"]\n',
        b'{secret}\n{"node": "node-0"}\n',
        b"{secret}\n[0, 0, 0, null, 3]\n",
        b'{secret}\n["", 0, 0, null, 3]\n',
        b'{secret}\n["node\\u001b[2J", 0, 0, null, 3]\n',
        b'{secret}\n["node-0", "0", 0, null, 3]\n',
        b'{secret}\n["node-0", 0, NaN, null, 3]\n',
        b'{secret}\n["node-0", 0, -1, null, 3]\n',
        b'{secret}\n["node-0", 0, 0, 4711, 3]\n',
        b"{secret}\n" + b"[" * 10_000 + b"\n",
        b"x" * 20_000,
    ],
)
def test_an_invalid_peer_is_disconnected_and_nothing_is_received(
    receiver: Receiver, journals: Journals, sent: bytes
) -> None:
    with socket.create_connection(receiver.address[:2], timeout=60) as peer:
        peer.sendall(sent.replace(b"{secret}", receiver.address.secret.encode()))
        with suppress(ConnectionResetError):
            assert peer.recv(100) == b""
    assert journals.parcels == []
    with closing(Wire(receiver.address)) as wire:
        assert wire.send(Parcel("node-0", 0), b"{}\n") == 3


def test_peers_without_the_secret_are_limited_and_nodes_are_received(
    receiver: Receiver, journals: Journals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire_module, "MAX_UNAUTHENTICATED", 10)
    with ExitStack() as opened, closing(Wire(receiver.address)) as node:
        assert node.send(Parcel("node-0", 0), b"{}\n") == 3
        address = receiver.address.host, receiver.address.port
        peers = [opened.enter_context(socket.create_connection(address, timeout=60)) for _ in range(30)]
        with suppress(ConnectionError):
            assert [peer.recv(1) for peer in peers[:20]] == [b""] * 20, "the oldest are closed"
        assert node.send(Parcel("node-0", 3), b"{}\n") == 6
        with closing(Wire(receiver.address)) as late:
            assert late.send(Parcel("node-1", 0), b"{}\n") == 3
        for peer in peers[-9:]:
            peer.setblocking(False)
            with pytest.raises(BlockingIOError):
                peer.recv(1)


def test_sending_to_a_closed_receiver_raises_connection_error(journals: Journals) -> None:
    receiver = Receiver(journals, "127.0.0.1")
    receiver.start()
    with closing(Wire(receiver.address)) as wire:
        assert wire.send(Parcel("node-0", 0), b"{}\n") == 3
        receiver.close()
        with pytest.raises(ConnectionError):
            wire.send(Parcel("node-0", 3), b"{}\n")
    with pytest.raises(ConnectionError):
        Wire(receiver.address)


class Handle:
    """Ray's handle of a hub, whose methods answer when they are called."""

    def __init__(self, address: Address | None, journals: Journals) -> None:
        self.asked = 0
        self.at = address
        self.address = SimpleNamespace(remote=self._address_now)
        self.receive = SimpleNamespace(remote=journals)

    def _address_now(self) -> Address | None:
        self.asked += 1
        return self.at


@pytest.fixture
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "answer_within", lambda answer, seconds: answer)


@pytest.mark.usefixtures("_without_ray")
def test_lines_go_through_ray_if_no_wire_can_be_made(journals: Journals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for address in (None, Address("127.0.0.1", port, "s")):
        handle, node = Handle(address, journals), f"node-{address}"
        connection = HubConnection(handle)
        assert connection.send(Parcel(node, 0), b"{}\n") == 3
        assert connection.send(Parcel(node, 3), b"{}\n") == 6
        assert handle.asked == 1
        connection.close()


@pytest.mark.usefixtures("_without_ray")
def test_lines_go_through_ray_if_another_program_has_the_hubs_port(journals: Journals) -> None:
    class NotTheHub(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), NotTheHub) as server:
        serving = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        connection = HubConnection(Handle(Address("127.0.0.1", server.server_address[1], "s"), journals))
        with pytest.raises(ConnectionError):
            connection.send(Parcel("node-0", 0), b"{}\n")
        assert connection.send(Parcel("node-0", 0), b"{}\n") == 3
        server.shutdown()
        serving.join()


@pytest.mark.usefixtures("_without_ray")
def test_a_hub_that_was_restarted_is_found_at_its_new_address(receiver: Receiver) -> None:
    before = Receiver(Journals(), "127.0.0.1")
    before.start()
    handle = Handle(before.address, Journals())
    connection = HubConnection(handle)
    assert connection.send(Parcel("node-0", 0), b"{}\n") == 3
    assert connection.send(Parcel("node-0", 3), b"{}\n") == 6
    assert handle.asked == 1
    before.close()
    with pytest.raises(ConnectionError):
        connection.send(Parcel("node-0", 6), b"{}\n")
    handle.at = receiver.address
    assert connection.send(Parcel("node-0", 6), b"{}\n") == 0  # the new hub has nothing of that journal
    connection.close()


@pytest.mark.parametrize(("at", "tls"), [(None, "0"), ("127.0.0.1", "1"), ("192.0.2.1", "0")])
def test_a_hub_without_an_address_or_with_rays_encryption_receives_through_ray(
    at: str | None, tls: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_USE_TLS", tls)
    monkeypatch.setattr(sys, "setswitchinterval", lambda _: None)  # that of this process
    hub = HubActor("127.0.0.1", 0, None, at)
    assert hub.address() is None
    assert hub.receive(Parcel("node-0", 0), b"") == 0
    hub._server.close()


@given(
    st.lists(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300), max_size=6)
    | st.dictionaries(st.text(max_size=5), st.integers(), max_size=6)
)
def test_a_parcel_that_is_accepted_has_bounded_fields(sent: object) -> None:
    try:
        parcel, size = _parse_parcel(json.dumps(sent).encode())
    except ValueError:
        return
    assert 0 < len(parcel.node) <= 256
    assert parcel.node.isprintable()
    assert min(parcel.offset, parcel.dropped, size) >= 0
    assert size <= MAX_PARCEL_BYTES


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_no_parcel_and_raise_value_error(sent: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        _parse_parcel(sent)
