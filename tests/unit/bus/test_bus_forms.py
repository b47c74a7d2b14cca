"""The forms of callbacks, and that every awaitable they return is awaited."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import pytest

from phasebus.bus import Bus, CallbackSignatureError, Context

pytestmark = pytest.mark.anyio


class Ping:
    pass


async def _one(event: Any) -> str:
    await anyio.lowlevel.checkpoint()
    return "ran"


async def _two(event: Any, context: Any) -> str:
    await anyio.lowlevel.checkpoint()
    context["ran"] = True
    return "ran"


class AsyncCall:
    async def __call__(self, event: Any) -> str:
        return await _one(event)

    async def method(self, event: Any) -> str:
        return await _one(event)

    @staticmethod
    async def static(event: Any) -> str:
        return await _one(event)

    @classmethod
    async def of_class(cls, event: Any) -> str:
        return await _one(event)


def _wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return function(*args)

    return call


ASYNCHRONOUS: dict[str, Callable[..., Any]] = {
    "function": _one,
    "with context": _two,
    "partial": functools.partial(_two, context={}),
    "partial of partial": functools.partial(functools.partial(_one)),
    "lambda": lambda event: _one(event),  # noqa: PLW0108  # it hides that the function is asynchronous
    "lambda with context": lambda event, context: _two(event, context),  # noqa: PLW0108
    "bound method": AsyncCall().method,
    "static method": AsyncCall.static,
    "class method": AsyncCall.of_class,
    "asynchronous __call__": AsyncCall(),
    "partial of asynchronous __call__": functools.partial(AsyncCall()),
    "wrapper": _wrapped(_one),
    "varargs": lambda *args: _two(*args),  # noqa: PLW0108
}


@pytest.mark.parametrize("form", ASYNCHRONOUS)
@pytest.mark.parametrize("options", [{}, {"timeout": 5.0}, {"thread": True}, {"on_error": "isolate"}])
async def test_awaitable_result_of_a_subscriber_is_awaited(form: str, options: dict[str, Any]) -> None:
    bus = Bus()
    bus.subscribe(Ping, ASYNCHRONOUS[form], name="it", **options)
    assert (await bus.publish(Ping()))["it"].value == "ran"


@pytest.mark.parametrize("form", ASYNCHRONOUS)
async def test_awaitable_result_of_an_observer_is_awaited(form: str) -> None:
    callback = ASYNCHRONOUS[form]
    async with Bus() as bus:
        observation = bus.observe(Ping, callback) if "context" not in form and form != "varargs" else None
        await bus.publish(Ping())
    if observation is not None:
        (stats,) = bus.stats()
        assert (stats.calls, stats.errors) == (1, 0)


@pytest.mark.parametrize(
    "callback",
    [
        lambda event: "one",
        lambda event, context: "two",
        lambda event, context=None: "optional",
        lambda event, extra=1: "default",
        lambda *args: "any",
        lambda phase, config, data: "short",
    ],
)
async def test_every_form_of_callback_is_called_with_its_arguments(callback: Callable[..., str]) -> None:
    bus = Bus()
    bus.subscribe(Ping, callback, name="it")
    assert (await bus.publish(Ping()))["it"].value is not None


def _optional(event: Ping, ctx: Context | None = None) -> Any:
    return ctx


def _another(event: Ping, ssl: Counter[str] | None = None) -> Any:
    return ssl


def _unknown(event: Ping, extra: nowhere.Context | None = None) -> Any:  # type: ignore[name-defined]  # noqa: F821
    return extra


async def test_optional_argument_is_passed_the_context_if_its_annotation_says_so() -> None:
    bus = Bus()
    for callback in (_optional, _another, _unknown):
        bus.subscribe(Ping, callback)
    assert [result.value for result in await bus.publish(Ping(), Context({"a": 1}))] == [{"a": 1}, None, None]


async def test_a_builtin_is_a_callback() -> None:
    bus = Bus()
    got: list[object] = []
    bus.subscribe(Ping, got.append)
    event = Ping()
    await bus.publish(event)
    assert got == [event]


def _generator(event: Any) -> Iterator[int]:
    yield 1


async def _async_generator(event: Any) -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    "callback",
    [
        lambda: None,
        lambda a, b, c, d: None,
        lambda event, *, needed: None,
        "not callable",
        _generator,
        _async_generator,
        functools.partial(_async_generator),
    ],
)
def test_callback_of_no_known_form_is_refused(callback: Any) -> None:
    with pytest.raises(CallbackSignatureError):
        Bus().subscribe(Ping, callback)


def test_refusal_shows_which_parameters_are_by_keyword_only() -> None:
    def on_ping(event, *, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return context

    with pytest.raises(CallbackSignatureError, match=r"'on_ping' takes \(event, \*, context\); .*, by position$"):
        Bus().subscribe(Ping, on_ping)  # type: ignore[arg-type]


async def test_decorated_function_stays_the_function_and_its_subscriptions_are_found() -> None:
    bus, other = Bus(), Bus()

    def two(event: Any) -> int:
        """Return two."""
        return 2

    assert bus.subscribe(Ping)(two) is two
    assert bus.subscribe(two) is two
    assert other.subscribe(Ping, name="it")(bus.subscribe(int)(two)) is two
    assert [s.name for s in bus.subscriptions(two)] == ["two", "two-2", "two-3"]
    assert [s.name for s in other.subscriptions()] == ["it"]
    assert [r.value for r in await bus.publish(Ping())] == [2, 2]
    for subscription in bus.subscriptions(two):
        with subscription:
            pass
        subscription.unsubscribe()
    assert bus.subscriptions() == ()
    assert len(await bus.publish(Ping())) == 0
    assert [r.value for r in await other.publish(Ping())] == [2]


async def test_subscription_passed_as_callback_stands_for_its_callback() -> None:
    bus, other = Bus(), Bus()
    handle = bus.subscribe(Ping, lambda event, context: "ran", name="it")
    other.subscribe(Ping, handle)  # type: ignore[call-overload]
    assert [r.value for r in await other.publish(Ping())] == ["ran"]


async def test_callback_that_cannot_be_hashed_or_compared_is_called() -> None:
    class Hostile(AsyncCall):
        def __eq__(self, other: object) -> bool:
            raise ValueError("the truth value of an array is ambiguous")

        def __hash__(self) -> int:
            raise TypeError("unhashable type: 'list'")

    bus = Bus()
    first, second = Hostile(), Hostile()
    for callback in (first, second):
        bus.subscribe(Ping, callback)
    assert [result.value for result in await bus.publish(Ping())] == ["ran", "ran"]
    assert [handle.name for handle in bus.subscriptions(second)] == ["Hostile-2"]


async def test_names_come_from_the_callback_and_are_made_unique() -> None:
    bus = Bus()
    names = [
        bus.subscribe(Ping, callback).name
        for callback in (_one, _one, AsyncCall(), functools.partial(_one), lambda event: 1)
    ]
    assert names == ["_one", "_one-2", "AsyncCall", "_one-3", "lambda"]


async def test_a_context_is_made_where_the_publisher_gives_none() -> None:
    bus = Bus()
    seen: list[Any] = []

    @bus.subscribe(Ping)
    def first(event: Ping, context: Context) -> None:
        context["a"] = 1

    @bus.subscribe(Ping)
    def second(event: Ping, context: Context) -> None:
        seen.append(dict(context))

    await bus.publish(Ping())
    await bus.publish(Ping())
    assert seen == [{"a": 1}, {"a": 1}]
