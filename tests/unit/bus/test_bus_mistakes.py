"""Mistakes that would pass in silence: each is refused, or logged, with what to do instead."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable
from unittest.mock import AsyncMock, MagicMock, Mock

import pytest

from phasebus.bus import (
    Bus,
    BusStateError,
    CallbackRunner,
    CallbackSignatureError,
    EventError,
    Key,
    OptionError,
    PhasebusError,
    Retry,
    phase_event,
)

pytestmark = pytest.mark.anyio


class Ping:
    pass


async def test_publishing_a_class_raises() -> None:
    for bus in (Bus(), Bus(history=1)):
        with pytest.raises(EventError, match=r"Ping is a class; publish an object of it: publish\(Ping\(…\)\)"):
            await bus.publish(Ping)


async def awaited(event: Ping) -> None: ...


@pytest.mark.parametrize("callback", [None, awaited, lambda event: None, lambda event, context: None])
async def test_publishing_with_a_dict_as_context_raises_whatever_is_subscribed(callback: Any) -> None:
    bus = Bus()
    if callback is not None:
        bus.subscribe(Ping, callback)
    with pytest.raises(EventError, match=r"\{'a': 1\} is no context; publish with Context"):
        await bus.publish(Ping(), {"a": 1})  # type: ignore[arg-type]


async def test_returning_a_mapping_to_a_dict_as_context_raises() -> None:
    async def returns(event: Ping) -> dict[str, int]:
        return {"b": 1}

    bus = Bus()
    bus.subscribe(Ping, returns)
    with pytest.raises(EventError, match=r"\{'a': 1\} is no context; publish with Context"):
        await bus.publish(Ping(), {"a": 1})  # type: ignore[arg-type]


def test_publish_that_is_not_awaited_warns_with_its_name() -> None:
    bus = Bus()
    with pytest.warns(RuntimeWarning, match=r"coroutine 'Bus\.publish' was never awaited"):
        bus.publish(Ping())  # type: ignore[unused-coroutine]


@pytest.mark.parametrize("question", ["explain", "wants"])
@pytest.mark.parametrize("thing", [Ping(), "pre_download", Ping | int])
def test_explain_and_wants_refuse_what_is_no_class(question: str, thing: object) -> None:
    with pytest.raises(EventError, match=f"{question}.*: a class of events is needed"):
        getattr(Bus(), question)(thing)


class Callable_:  # noqa: N801
    def __call__(self, event: Ping) -> None: ...


class Watching:
    def observe(self, event: Ping) -> None: ...


@pytest.mark.parametrize("thing", [Callable_, Watching])
def test_subscribing_a_class_of_callbacks_instead_of_an_object_raises(thing: Any) -> None:
    bus = Bus()
    for subscribe in (bus.subscribe, lambda thing: bus.subscribe(Ping, thing), lambda thing: bus.observe(Ping, thing)):
        with pytest.raises(CallbackSignatureError, match=rf"give one of them: {thing.__name__}\(…\)"):
            subscribe(thing)


def test_decorating_a_method_in_a_class_body_raises() -> None:
    bus = Bus()
    with pytest.raises(CallbackSignatureError, match=r"'on' is a method.*subscribe\(event, self.on\) in __init__"):

        class Service:
            @bus.subscribe(Ping)
            def on(self, event: Ping) -> None: ...


def test_three_arguments_that_are_not_the_short_form_are_refused() -> None:
    def callback(event: Ping, context: Any, extra: int) -> None: ...

    with pytest.raises(CallbackSignatureError, match=r"takes \(event: 'Ping', context: 'Any', extra: 'int'\)"):
        Bus().subscribe(Ping, callback)  # type: ignore[arg-type]


def test_subscribing_to_a_misspelled_phase_logs_the_nearest_name(caplog: pytest.LogCaptureFixture) -> None:
    phase_event("pre_boarding")
    bus = Bus()
    bus.subscribe("pre_baording", lambda event: None)
    bus.subscribe("pre_boarding", lambda event: None)
    bus.subscribe("something_else_entirely", lambda event: None)
    assert [record.message for record in caplog.records] == [
        "no event declares the phase 'pre_baording'. Did you mean 'pre_boarding'?"
    ]


@runtime_checkable
class OfModel(Protocol):
    model: str


async def test_protocol_selects_a_class_that_sets_the_attribute_in_init() -> None:
    class Started:
        def __init__(self) -> None:
            self.model = "tiny"

    class Inherits(Started):
        pass

    bus = Bus()
    bus.subscribe(OfModel, lambda event: event.model, name="it")
    for event in (Started(), Inherits()):
        assert (await bus.publish(event))["it"].value == "tiny"
    assert len(await bus.publish(Ping())) == 0


@pytest.mark.parametrize("mock", [Mock, MagicMock, AsyncMock])
async def test_mock_is_a_callback_and_no_observer(mock: Any) -> None:
    callback = mock(return_value={"a": 1})
    assert await CallbackRunner([callback]).run("boarding") == {"a": 1}
    assert callback.call_count == 1


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"stage": "early"}, "Did you mean 'Stage.EARLY'"),
        ({"on_error": "isolated"}, "Did you mean 'isolate'"),
        ({"on_error": Retry}, r"'raise', 'isolate' or a Retry\(…\)"),
        ({"timeout": "5"}, r"such as timeout=5\.0"),
        ({"timeout": -1}, "a number of seconds"),
        ({"timeout": float("nan")}, "a number of seconds"),
        ({"timeout": True}, "a number of seconds"),
        ({"thread": "no"}, "True or False"),
        ({"weak": None}, "True or False"),
        ({"before": None}, "a name is needed, or a list of names"),
        ({"after": [print]}, "a name is needed, or a list of names"),
    ],
)
def test_wrong_options_of_subscribe_are_refused(option: dict[str, Any], message: str) -> None:
    bus = Bus()
    with pytest.raises(OptionError, match=message):
        bus.subscribe(Ping, lambda event: None, **option)
    with pytest.raises(OptionError, match=message):
        bus.subscribe(Ping, **option)
    assert bus.subscriptions() == ()


@pytest.mark.parametrize(
    "option", [{"buffer": 0}, {"buffer": -1}, {"buffer": 1.5}, {"overflow": "blok"}, {"overflow": None}]
)
async def test_wrong_options_of_observe_and_stream_are_refused(option: dict[str, Any]) -> None:
    async with Bus() as bus:
        with pytest.raises(OptionError):
            bus.observe(Ping, lambda event: None, **option)
        with pytest.raises(OptionError):
            async with bus.stream(Ping, **option):
                pass
        with pytest.raises(OptionError, match="replay=-1"):
            async with bus.stream(Ping, replay=-1):
                pass
        assert not bus.wants(Ping)


@pytest.mark.parametrize("name", [5, ""])
async def test_name_that_is_none_is_refused(name: Any) -> None:
    async with Bus() as bus:
        for subscribe in (bus.subscribe, bus.observe):
            with pytest.raises(OptionError, match=r"name=.*a name is needed"):
                subscribe(Ping, lambda event: None, name=name)


async def test_wrong_options_of_find_and_step_are_refused() -> None:
    async with Bus() as bus:
        with pytest.raises(OptionError, match=r"where='name'.*a function is needed"):
            await bus.find(Ping, where="name")  # type: ignore[call-overload]
        with pytest.raises(OptionError, match=r"past='all'.*a whole number"):
            await bus.find(Ping, past="all")  # type: ignore[call-overload]
        with pytest.raises(OptionError, match=r"kind='download'.*such as StepKind\('download'\)"):
            bus.step("download", "tiny")  # type: ignore[arg-type]
        with pytest.raises(OptionError, match=r"coalesce='yes'"):
            bus.observe(Ping, lambda event: None, coalesce="yes")  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", [{"on_conflict": "lst"}, {"on_conflict": None}, {"validate": "int"}])
def test_wrong_rules_of_a_key_are_refused(rule: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="a function"):
        Key("port", **rule)


@pytest.mark.parametrize(
    "option", [{"history": -1}, {"max_depth": 0}, {"drain_seconds": -1}, {"history": "10"}, {"timing": "no"}]
)
def test_wrong_options_of_a_bus_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        Bus(**option)


@pytest.mark.parametrize(
    "option",
    [
        *({"times": value} for value in (-1, "3", 2.5)),
        *({"backoff": value} for value in (-0.1, "1", float("nan"))),
        *({"longest": -1}, {"jitter": 1.5}),
        *({"on": value} for value in ([ValueError], ValueError(), "ValueError", BaseException, ())),
    ],
)
def test_wrong_options_of_a_retry_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        Retry(**option)


async def test_subscribing_to_a_closed_bus_raises() -> None:
    async with Bus() as bus:
        pass
    with pytest.raises(BusStateError, match="is closed, so there is nothing more to subscribe"):
        bus.subscribe(Ping, lambda event: None)


async def test_drops_are_logged_once_with_the_remedy(caplog: pytest.LogCaptureFixture) -> None:
    async with Bus() as bus:
        with caplog.at_level(logging.WARNING, "phasebus.bus"):
            async with bus.stream(Ping, buffer=2):
                for _ in range(10):
                    await bus.publish(Ping())
    (record,) = caplog.records
    assert record.getMessage().startswith("'Stream' is slower than its events: its buffer of 2 is full")
    assert "overflow='block'" in record.getMessage()


class NotPrintable:
    def __repr__(self) -> str:
        return repr(self)

    __str__ = __repr__


REFUSALS: list[Callable[[Bus, Any], object]] = [
    lambda bus, wrong: bus.subscribe(Ping, wrong),
    lambda bus, wrong: bus.subscribe(wrong, lambda event: None),
    lambda bus, wrong: bus.subscribe(Ping, lambda event: None, stage=wrong),
    lambda bus, wrong: bus.subscribe(Ping, lambda event: None, on_error=wrong),
    lambda bus, wrong: bus.subscribe(Ping, lambda event: None, timeout=wrong),
    lambda bus, wrong: bus.subscribe(Ping, lambda event: None, before=wrong),
    lambda bus, wrong: bus.subscribe(Ping, lambda event: None, thread=wrong),
    lambda bus, wrong: bus.observe(Ping, lambda event: None, buffer=wrong),
    lambda bus, wrong: bus.step(wrong, "a"),
    lambda bus, wrong: bus.wants(wrong),
    lambda bus, wrong: CallbackRunner([wrong]),
    lambda bus, wrong: Key("key", on_conflict=wrong),
    lambda bus, wrong: Key("key", validate=int).checked(wrong, "me"),
]


@pytest.mark.parametrize("refuse", REFUSALS)
@pytest.mark.parametrize("wrong", [NotPrintable(), [None] * 1_000], ids=["not printable", "long"])
async def test_message_shows_a_wrong_value_that_is_long_or_cannot_be_printed(refuse: Any, wrong: object) -> None:
    with pytest.raises(PhasebusError, match=r"<NotPrintable>|more characters\)") as refused:
        refuse(Bus(), wrong)
    assert len(str(refused.value)) < 1_000


async def test_message_shows_a_context_that_cannot_be_printed() -> None:
    with pytest.raises(EventError, match="<NotPrintable> is no context"):
        await Bus().publish(Ping(), NotPrintable())  # type: ignore[arg-type]
