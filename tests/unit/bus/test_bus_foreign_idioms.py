"""Idioms of other event libraries: each works here as well, or is refused with what does."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import Any, TypedDict

import anyio
import pytest

from phasebus.bus import (
    Bus,
    BusStateError,
    CallbackRunner,
    CallbackSignatureError,
    Event,
    EventError,
    Key,
    OptionError,
    subscribe_all,
)

pytestmark = pytest.mark.anyio


class Ping:
    pass


class Pong:
    pass


@dataclass(frozen=True)
class Ended:
    model: str = ""


class Body(TypedDict):
    status: str


class Unanswering(type):
    def __subclasscheck__(cls, other: type) -> bool:
        raise TypeError("no class checks")


class Odd(metaclass=Unanswering):
    pass


async def is_even(number: int) -> bool:
    return number % 2 == 0


class IsEven:
    async def __call__(self, number: int) -> bool:
        return number % 2 == 0


@pytest.mark.parametrize("where", [is_even, IsEven(), lambda number: is_even(number + 1)])
@pytest.mark.parametrize("past", [True, False])
async def test_find_refuses_a_condition_that_would_have_to_be_awaited(where: Any, past: bool) -> None:
    async def publish_later() -> None:
        await anyio.wait_all_tasks_blocked()
        await bus.publish(3)

    async with Bus(history=1) as bus, anyio.create_task_group() as tasks:
        await bus.publish(1)
        tasks.start_soon(publish_later)
        with pytest.raises(OptionError, match=r"where=.*is not awaited; give a plain function"):
            await bus.find(int, where=where, past=past)


@pytest.mark.parametrize("rule", [{"validate": is_even}, {"validate": IsEven()}, {"on_conflict": is_even}])
def test_rule_of_a_key_that_would_have_to_be_awaited_is_refused(rule: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=r"asynchronous, and a write is not awaited; give a plain function"):
        Key("port", **rule)


@pytest.mark.parametrize("several", [Ended, type("Stopped", (Event,), {"__slots__": ()})])
def test_second_class_of_events_is_refused_as_a_callback(several: type) -> None:
    with pytest.raises(
        CallbackSignatureError, match=rf"{several.__name__} is a class of events.*A \| {several.__name__}"
    ):
        Bus().subscribe(Ping, several)


def test_list_of_classes_is_refused_with_their_union() -> None:
    classes: Any = [Ping, Pong]
    for subscribe in (Bus().subscribe(classes), partial(Bus().subscribe, classes)):
        with pytest.raises(
            CallbackSignatureError, match=r"\[Ping, Pong\] does not choose events; give the union, Ping \| Pong"
        ):
            subscribe(lambda event: None)


@pytest.mark.parametrize(("events", "message"), [(Body, "Body is a TypedDict.*give dict"), (Odd, "no class checks")])
async def test_class_that_cannot_be_asked_for_its_subclasses_is_refused(events: Any, message: str) -> None:
    bus = Bus()
    for chosen in (events, (int, events)):
        with pytest.raises(CallbackSignatureError, match=message):
            bus.subscribe(chosen, lambda event: None)
    assert len(await bus.publish("other")) == 0


async def test_coroutine_is_neither_an_event_nor_a_callback() -> None:
    bus = Bus()
    bus.subscribe(lambda event: None)
    coroutine = is_even(2)
    with pytest.raises(EventError, match=r"was not awaited; publish what it returns: publish\(await is_even\(…\)\)"):
        await bus.publish(coroutine)
    with pytest.raises(CallbackSignatureError, match="give the function itself, without calling it"):
        bus.subscribe(Ping, coroutine)  # type: ignore[call-overload]
    coroutine.close()


async def test_iterating_over_a_stream_that_is_not_open_names_async_with() -> None:
    async with Bus() as bus:
        with pytest.raises(BusStateError, match=r"open it first: async with bus\.stream\(…\) as events"):
            async for _ in bus.stream(Ping):  # type: ignore[attr-defined]
                pass
        assert not bus.wants(Ping)


async def test_text_that_reaches_no_subscriber_to_a_name_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    bus = Bus()
    bus.subscribe("user.created", lambda event: None)
    with caplog.at_level(logging.WARNING, "phasebus.bus"):
        for _ in range(3):
            await bus.publish("user.created")
    (record,) = caplog.records
    assert "'user.created'" in record.getMessage()
    assert "Publish phase_event('user.created')()" in record.getMessage()


async def test_text_that_reaches_a_subscriber_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    bus = Bus()
    bus.subscribe("user.created", lambda event: None)
    bus.subscribe(str, lambda event: None)
    with caplog.at_level(logging.WARNING, "phasebus.bus"):
        await bus.publish("user.created")
        await bus.publish(1)
    assert caplog.records == []


class Touchy:
    """An object of a plugin: its properties are expensive, and so are the attributes that it does not have."""

    def __init__(self, touched: list[str]) -> None:
        vars(self)["touched"] = touched

    @property
    def observe(self) -> Any:
        self.touched.append("observe")
        raise RuntimeError("expensive")

    close = __signature__ = observe

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")

    def __call__(self, event: Ping) -> str:
        return "called"


class Flagged:
    observe = True

    def __call__(self, event: Ping) -> str:
        return "called"


async def test_properties_and_flags_of_a_callback_are_not_taken_for_methods() -> None:
    touched: list[str] = []
    bus = Bus()
    subscribe_all(bus, [Touchy(touched), Flagged()])
    assert [result.value for result in await bus.publish(Ping())] == ["called", "called"]
    assert touched == []


async def test_observer_the_other_attributes_of_which_raise_observes() -> None:
    class Private:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(f"no {name}")

        def observe(self, event: Ping) -> None:
            seen.append(event)

    seen: list[Ping] = []
    async with Bus() as bus:
        bus.observe(None, Private())
        await bus.publish(Ping())
    assert len(seen) == 1


async def test_objects_that_are_false_are_used_like_others() -> None:
    class Empty(Bus):
        def __len__(self) -> int:
            return 0

    class Silent:
        def __bool__(self) -> bool:
            return False

        def __call__(self, event: int) -> bool:
            return event == 2

    bus, silent = Empty(), Silent()
    assert CallbackRunner([], bus=bus).bus is bus
    async with Bus(history=3) as kept:
        kept.subscribe(int, silent)
        for number in (1, 2, 3):
            await kept.publish(number)
        assert await kept.find(int, where=silent, past=True) == 2
        assert len(kept.subscriptions(silent)) == 1
