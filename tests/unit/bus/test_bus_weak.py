"""Methods that are held weakly: the bus does not keep their objects alive."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from phasebus.bus import Bus, Context, OptionError, PhaseEvent, phase_event

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def search_only_new_objects() -> Iterator[None]:
    """Exclude what other tests left from the search for garbage, which takes 0.1 s otherwise."""
    gc.freeze()
    yield
    gc.unfreeze()


class Ping:
    pass


class Receiver:
    def __init__(self, received: list[Any]) -> None:
        self.received = received

    def sync(self, event: Ping) -> None:
        self.received.append("sync")

    async def asynchronous(self, event: Ping) -> str:
        self.received.append("async")
        return "value"

    async def with_context(self, event: Ping, context: Context) -> None:
        self.received.append("context")
        context["key"] = 1

    def short(self, phase: str, config: Any, data: Any) -> None:
        self.received.append(phase)


@pytest.mark.parametrize("method", ["sync", "asynchronous", "with_context"])
@pytest.mark.parametrize("thread", [False, True])
async def test_method_is_called_until_its_object_is_deleted(method: str, thread: bool) -> None:
    received: list[Any] = []
    receiver = Receiver(received)
    async with Bus() as bus:
        bus.subscribe(Ping, getattr(receiver, method), weak=True, thread=thread, name="it")
        assert len(bus.subscriptions(getattr(receiver, method))) == 1
        await bus.publish(Ping())
        assert len(received) == 1
        del receiver
        gc.collect()
        assert (await bus.publish(Ping())).errors == ()
        assert len(received) == 1
        assert bus.subscriptions() == ()
        bus.subscribe(Ping, Receiver(received).sync, name="it")


async def test_short_form_can_be_held_weakly() -> None:
    received: list[Any] = []
    receiver = Receiver(received)
    bus = Bus()
    bus.subscribe(PhaseEvent, receiver.short, weak=True)
    await bus.publish(phase_event("landing")())
    del receiver
    gc.collect()
    await bus.publish(phase_event("landing")())
    assert received == ["landing"]


async def test_object_that_is_deleted_during_a_publish_is_skipped() -> None:
    received: list[Any] = []
    receivers = {"second": Receiver(received)}
    bus = Bus()
    bus.subscribe(Ping, lambda event: receivers.clear())
    bus.subscribe(Ping, receivers["second"].asynchronous, weak=True)
    outcome = await bus.publish(Ping())
    gc.collect()
    assert (received, outcome.errors) == ([], ())
    await bus.publish(Ping())
    assert len(bus.subscriptions()) == 1


async def test_strong_subscription_keeps_the_object() -> None:
    received: list[Any] = []
    bus = Bus()
    bus.subscribe(Ping, Receiver(received).sync)
    gc.collect()
    await bus.publish(Ping())
    assert received == ["sync"]


def test_many_deleted_objects_leave_no_subscribers_behind() -> None:
    bus = Bus()
    for _ in range(200):
        bus.subscribe(Ping, Receiver([]).sync, weak=True)
    gc.collect()
    assert bus.subscriptions() == ()


def test_subscription_of_a_deleted_object_has_no_callback() -> None:
    receiver = Receiver([])
    held = weakref.ref(receiver)
    subscription = Bus().subscribe(Ping, receiver.sync, weak=True)
    assert subscription.callback == receiver.sync
    del receiver
    gc.collect()
    assert held() is None
    assert subscription.callback is None


class Slotted:
    __slots__ = ()

    def method(self, event: Ping) -> None: ...


@pytest.mark.parametrize(
    ("callback", "reason"),
    [
        (lambda event: None, "weak=True: 'lambda' is no method of an object"),
        (partial(Receiver.sync, Receiver([])), "is no method of an object"),
        (Slotted().method, "cannot create weak reference to 'Slotted' object; give its class a slot '__weakref__'"),
    ],
)
def test_callback_that_cannot_be_held_weakly_is_refused(callback: Any, reason: str) -> None:
    bus = Bus()
    with pytest.raises(OptionError, match=reason):
        bus.subscribe(Ping, callback, weak=True)
    assert bus.subscriptions() == ()
