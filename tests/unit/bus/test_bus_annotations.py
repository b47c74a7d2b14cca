"""Which events an annotation selects: what type checkers ask for, decorators, and names that exist only for type checkers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, NewType, TypeVar

import pytest
from typing_extensions import TypeAliasType

from phasebus.bus import Bus, CallbackSignatureError, Context

if TYPE_CHECKING:
    import nowhere  # type: ignore[import-not-found]

T = TypeVar("T")


@dataclass(frozen=True)
class Ping:
    number: int = 0


class Pong: ...


class LoudPing(Ping): ...


@dataclass(frozen=True)
class Envelope(Generic[T]):
    content: T


class Letter(Envelope[str]): ...


Bound = TypeVar("Bound", bound=Ping)
OneOf = TypeVar("OneOf", Ping, Pong)
Either = TypeAliasType("Either", Ping | Pong)
Nested = TypeAliasType("Nested", Either | int)
Name = NewType("Name", str)

CLASSES = (Ping, LoudPing, Pong, Envelope, Letter, int, str)


def of_alias(event: Either) -> None: ...
def of_nested_alias(event: Nested) -> None: ...
def of_annotated(event: Annotated[Ping, "as pydantic reads it"]) -> None: ...
def of_any_envelope(event: Envelope[Any]) -> None: ...
def of_generic_envelope(event: Envelope[T]) -> T:
    return event.content


def of_bound_variable(event: Bound) -> Bound:
    return event


def of_constrained_variable(event: OneOf) -> OneOf:
    return event


def of_free_variable(event: T) -> T:
    return event


def returns_what_only_type_checkers_know(event: Ping) -> nowhere.Tensor: ...
def takes_what_only_type_checkers_know(event: Ping, context: nowhere.Context) -> None: ...
def returns_what_fails_to_evaluate(event: Ping) -> None: ...


returns_what_fails_to_evaluate.__annotations__["return"] = "1 / 0"


@functools.cache
def cached(event: Ping) -> None: ...


class Curried:
    """A decorator that is a class."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)


@Curried
def curried(event: Ping, context: Context) -> None: ...


def with_a_session(function: Callable[[Any, str], Any]) -> Callable[[Any], Any]:
    """Supply the second argument."""

    @functools.wraps(function)
    def wrapper(event: Any) -> Any:
        return function(event, "session")

    return wrapper


@with_a_session
def in_a_session(event: Ping, session: str) -> str:
    return session


@pytest.mark.parametrize(
    ("callback", "selected"),
    [
        (of_alias, {Ping, LoudPing, Pong}),
        (of_nested_alias, {Ping, LoudPing, Pong, int}),
        (of_annotated, {Ping, LoudPing}),
        (of_any_envelope, {Envelope, Letter}),
        (of_generic_envelope, {Envelope, Letter}),
        (of_bound_variable, {Ping, LoudPing}),
        (of_constrained_variable, {Ping, LoudPing, Pong}),
        (of_free_variable, set(CLASSES)),
        (returns_what_only_type_checkers_know, {Ping, LoudPing}),
        (takes_what_only_type_checkers_know, {Ping, LoudPing}),
        (returns_what_fails_to_evaluate, {Ping, LoudPing}),
        (cached, {Ping, LoudPing}),
        (staticmethod(of_annotated), {Ping, LoudPing}),
        (curried, {Ping, LoudPing}),
        (in_a_session, {Ping, LoudPing}),
    ],
)
def test_annotation_of_the_first_argument_selects_its_events(callback: Any, selected: set[type]) -> None:
    bus = Bus()
    bus.subscribe(callback)
    assert {each for each in CLASSES if bus.wants(each)} == selected


@pytest.mark.parametrize("events", [Either, Annotated[Ping, "doc"], Envelope[Any], Bound])
def test_type_expression_is_a_selector_and_no_callback(events: Any) -> None:
    bus = Bus()
    handle = bus.subscribe(events, lambda event: None, name="it")
    bus.subscribe(events)(lambda event: None)
    assert len(bus.subscriptions()) == 2
    assert handle.name == "it"


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        (Envelope[int], "give Envelope, or a subclass of"),
        (list[int], "give list, or a subclass of"),
        (Name, "does not choose events"),
        (Literal["a"], "does not choose events"),
    ],
)
def test_type_that_no_object_can_be_checked_against_is_refused(events: Any, reason: str) -> None:
    bus = Bus()
    with pytest.raises(CallbackSignatureError, match=reason):
        bus.subscribe(events, lambda event: None)
    with pytest.raises(CallbackSignatureError, match=reason):
        bus.subscribe(events)(lambda event: None)
    assert bus.subscriptions() == ()


@pytest.mark.anyio
async def test_wrapper_that_supplies_an_argument_is_called_with_its_own() -> None:
    bus = Bus()
    bus.subscribe(in_a_session)
    bus.subscribe(curried)
    assert [result.value for result in await bus.publish(Ping())] == ["session", None]
