from __future__ import annotations

import socket
import socketserver
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import pairwise
from threading import Thread
from types import SimpleNamespace

import pytest

from phasebus.initializer.cluster.hub import start
from phasebus.initializer.cluster.hub.actor import HubActor
from phasebus.initializer.cluster.hub.wire import MOST_BYTES, Address, Parcel, Receiver, RefusedError, Wire


class Taker:
    """Takes what begins where the last parcel ended."""

    def __init__(self) -> None:
        self.taken: dict[str, bytes] = {}
        self.parcels: list[Parcel] = []

    def __call__(self, parcel: Parcel, lines: bytes) -> int:
        if lines == b"unreadable\n":
            raise ValueError("that is no JSON")
        self.parcels.append(parcel)
        had = self.taken.get(parcel.node, b"")
        if parcel.offset == len(had):
            self.taken[parcel.node] = had + lines
        return len(self.taken.get(parcel.node, b""))


@pytest.fixture
def taker() -> Taker:
    return Taker()


@pytest.fixture
def receiver(taker: Taker) -> Iterator[Receiver]:
    receiver = Receiver(taker, "127.0.0.1")
    receiver.start()
    yield receiver
    receiver.close()


def test_lines_arrive_whole_and_in_order_however_large_they_are(receiver: Receiver, taker: Taker) -> None:
    lines = b"x" * (MOST_BYTES - 1) + b"\n"
    with closing(Wire(receiver.address)) as one, closing(Wire(receiver.address)) as two:
        assert one.send(Parcel("node-0", 0, 3, "10.0.0.1:9464"), lines) == MOST_BYTES
        assert two.send(Parcel("node-1", 0), b"") == 0
        assert one.send(Parcel("node-0", MOST_BYTES, 3), b"more\n") == MOST_BYTES + 5
    assert taker.taken["node-0"] == lines + b"more\n"
    assert taker.parcels[:2] == [Parcel("node-0", 0, 3, "10.0.0.1:9464"), Parcel("node-1", 0, 0, None)]


def test_what_cannot_be_taken_is_told_and_the_wire_goes_on(receiver: Receiver, taker: Taker) -> None:
    with closing(Wire(receiver.address)) as wire:
        with pytest.raises(RefusedError, match="the journal of node-0: ValueError: that is no JSON"):
            wire.send(Parcel("node-0", 0), b"unreadable\n")
        assert wire.send(Parcel("node-0", 0), b"{}\n") == 3


def test_a_parcel_that_comes_in_pieces_is_taken_when_it_is_whole(receiver: Receiver, taker: Taker) -> None:
    whole = receiver.address.secret.encode() + b'\n["node-0", 0, 0, null, 6]\n{}\n{}\n'
    cuts = [0, 5, 33, 40, len(whole) - 3, len(whole)]
    with socket.create_connection(receiver.address[:2], timeout=60) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for begin, end in pairwise(cuts):
            raw.sendall(whole[begin:end])
        assert raw.recv(100) == b"6\n"
    assert taker.taken["node-0"] == b"{}\n{}\n"


@pytest.mark.parametrize(
    "said",
    [
        b"a guess\n",
        b"{secret}\nGET / HTTP/1.1\r\n\r\n",
        b'{secret}\n["node-0"]\n',
        b'{secret}\n["node-0", 0, 0, null, -1]\n',
        b'{secret}\n["node-0", 0, 0, null, 999999999]\n',
        b'{secret}\n["node-0", 0, 0, null, "6"]\n',
        b'{secret}\n{"node": "node-0"}\n',
        b"x" * 20_000,
    ],
)
def test_a_stranger_is_hung_up_on_and_nothing_is_taken(receiver: Receiver, taker: Taker, said: bytes) -> None:
    with socket.create_connection(receiver.address[:2], timeout=60) as stranger:
        stranger.sendall(said.replace(b"{secret}", receiver.address.secret.encode()))
        with suppress(ConnectionResetError):
            assert stranger.recv(100) == b""
    assert taker.parcels == []
    with closing(Wire(receiver.address)) as wire:
        assert wire.send(Parcel("node-0", 0), b"{}\n") == 3


def test_a_receiver_that_ends_is_noticed(taker: Taker) -> None:
    receiver = Receiver(taker, "127.0.0.1")
    receiver.start()
    with closing(Wire(receiver.address)) as wire:
        assert wire.send(Parcel("node-0", 0), b"{}\n") == 3
        receiver.close()
        with pytest.raises(ConnectionError):
            wire.send(Parcel("node-0", 3), b"{}\n")
    with pytest.raises(ConnectionError):
        Wire(receiver.address)


class Handle:
    """What Ray would give: each method's answer is made when it is called."""

    def __init__(self, address: Address | None, taker: Taker) -> None:
        self.asked = 0
        self.at = address
        self.address = SimpleNamespace(remote=self._tell)
        self.take = SimpleNamespace(remote=taker)

    def _tell(self) -> Address | None:
        self.asked += 1
        return self.at


@pytest.fixture
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "answer_within", lambda answer, seconds: answer)


@pytest.mark.usefixtures("_without_ray")
def test_where_there_is_no_wire_ray_carries_the_lines_and_is_not_asked_for_one_each_time(taker: Taker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for address in (None, Address("127.0.0.1", port, "s")):
        handle, node = Handle(address, taker), f"node-{address}"
        way = start._Way(handle)
        assert way.send(Parcel(node, 0), b"{}\n") == 3
        assert way.send(Parcel(node, 3), b"{}\n") == 6
        assert handle.asked == 1
        way.hang_up()


@pytest.mark.usefixtures("_without_ray")
def test_where_somebody_else_takes_the_call_ray_carries_the_lines(taker: Taker) -> None:
    class NotTheHub(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), NotTheHub) as server:
        serving = Thread(target=server.serve_forever)
        serving.start()
        way = start._Way(Handle(Address("127.0.0.1", server.server_address[1], "s"), taker))
        with pytest.raises(ConnectionError):
            way.send(Parcel("node-0", 0), b"{}\n")
        assert way.send(Parcel("node-0", 0), b"{}\n") == 3
        server.shutdown()
        serving.join()


@pytest.mark.usefixtures("_without_ray")
def test_the_way_to_a_hub_that_came_back_is_asked_for_anew(receiver: Receiver) -> None:
    before = Receiver(Taker(), "127.0.0.1")
    before.start()
    handle = Handle(before.address, Taker())
    way = start._Way(handle)
    assert way.send(Parcel("node-0", 0), b"{}\n") == 3
    assert way.send(Parcel("node-0", 3), b"{}\n") == 6
    assert handle.asked == 1
    before.close()
    with pytest.raises(ConnectionError):
        way.send(Parcel("node-0", 6), b"{}\n")
    handle.at = receiver.address
    assert (
        way.send(Parcel("node-0", 6), b"{}\n") == 0
    )  # it has nothing of that journal: it is to be told from the start
    way.hang_up()


@pytest.mark.parametrize(("at", "tls"), [(None, "0"), ("127.0.0.1", "1"), ("192.0.2.1", "0")])
def test_a_hub_without_an_address_or_with_rays_encryption_is_sent_to_through_ray(
    at: str | None, tls: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_USE_TLS", tls)
    hub = HubActor("127.0.0.1", 0, None, at)
    assert hub.address() is None
    assert hub.take(Parcel("node-0", 0), b"") == 0
    hub._server.close()
