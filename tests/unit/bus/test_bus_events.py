from __future__ import annotations

import functools
from collections.abc import Sized
from dataclasses import dataclass
from types import FunctionType
from typing import Any, ClassVar, Protocol, runtime_checkable

import attrs
import msgspec
import pydantic
import pytest

from phasebus.bus import Bus, CallbackSignatureError, Event, PhaseEvent, phase_event

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Download:
    size: int = 1


@dataclass(frozen=True)
class HubDownload(Download):
    pass


@dataclass(frozen=True)
class Other:
    pass


class Packed(msgspec.Struct, frozen=True):
    size: int = 2


@attrs.frozen
class Drawn:
    size: int = 3


class Checked(pydantic.BaseModel):
    size: int = 4


@runtime_checkable
class HasSize(Protocol):
    size: int


class SupportsLen(Protocol):
    def __len__(self) -> int: ...


class PreFlight(PhaseEvent):
    phase: ClassVar[str] = "pre_flight"


async def received(events: Any, *published: object) -> list[object]:
    bus = Bus()
    got: list[object] = []

    async def listen(event: object) -> None:
        got.append(event)

    bus.subscribe(events, listen)
    for event in published:
        await bus.publish(event)
    return got


async def test_a_class_selects_itself_and_its_subclasses() -> None:
    assert await received(Download, Download(), HubDownload(), Other()) == [Download(), HubDownload()]


async def test_a_union_selects_each_of_its_members() -> None:
    assert await received(HubDownload | Other, Download(), HubDownload(), Other()) == [HubDownload(), Other()]
    assert await received((HubDownload, Other), Download(), HubDownload(), Other()) == [HubDownload(), Other()]


async def test_a_protocol_selects_every_class_that_has_its_members() -> None:
    events = [Download(), Packed(), Drawn(), Checked(), Other()]
    assert await received(HasSize, *events) == events[:4]


def logged(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any) -> None:
        function(*args)

    return wrapper


class SetsAnotherObject:
    def __init__(self, child: Any) -> None:
        self.child = child
        child.size = 1


class SetsItself:
    @logged
    def __init__(self) -> None:
        self.name, self.size = "a", 1


def test_protocol_selects_by_attributes_that_init_sets_on_the_object_itself() -> None:
    bus = Bus()
    bus.subscribe(HasSize, lambda event: None)
    assert bus.wants(SetsItself)
    assert not bus.wants(SetsAnotherObject)


async def test_a_protocol_of_special_methods_does_not_select_everything() -> None:
    assert await received(SupportsLen, Other(), "text") == ["text"]
    assert await received(Sized, Other(), "text") == ["text"]


async def test_a_phase_name_selects_the_events_of_that_phase() -> None:
    assert await received("pre_flight", PreFlight(), phase_event("landing")(), Other()) == [PreFlight()]


async def test_any_selects_everything() -> None:
    events = [Download(), "text", 7, PreFlight()]
    assert await received(Any, *events) == events


async def test_an_event_may_be_an_object_of_any_class() -> None:
    for event in (Packed(), Drawn(), Checked(), Download()):
        assert await received(type(event), event) == [event]


async def test_without_events_the_annotation_of_the_first_argument_decides() -> None:
    bus = Bus()
    got: list[object] = []

    @bus.subscribe
    async def downloads(event: Download) -> None:
        got.append(event)

    @bus.subscribe()
    def either(event: HubDownload | Other) -> None:
        got.append(event)

    await bus.publish(Download())
    await bus.publish(Other())
    assert got == [Download(), Other()]


@pytest.mark.parametrize("annotated", [True, False])
async def test_without_an_annotation_or_with_any_a_subscriber_hears_everything(annotated: bool) -> None:
    bus = Bus()
    got: list[object] = []

    def bare(event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        got.append(event)

    def anything(event: Any) -> None:
        got.append(event)

    bus.subscribe(anything if annotated else bare)
    await bus.publish(Other())
    await bus.publish(PreFlight())
    assert got == [Other(), PreFlight()]


async def test_the_short_form_hears_every_phase_and_nothing_else() -> None:
    bus = Bus()
    got: list[object] = []
    bus.subscribe(lambda phase, config, data: got.append((phase, config)))
    await bus.publish(PreFlight(config={"a": 1}))
    await bus.publish(Other())
    assert got == [("pre_flight", {"a": 1})]


async def test_short_form_gets_the_class_name_of_an_event_that_is_no_phase() -> None:
    bus = Bus()
    got: list[object] = []
    bus.subscribe(Other, lambda phase, config, data: got.append((phase, config)))
    await bus.publish(Other())
    assert got == [("Other", None)]


def test_invalid_selector_is_refused_with_the_valid_ones() -> None:
    with pytest.raises(CallbackSignatureError, match="give a class, a union"):
        Bus().subscribe(42, print)  # type: ignore[call-overload]
    with pytest.raises(CallbackSignatureError, match="give at least one class"):
        Bus().subscribe((), print)


def test_an_annotation_that_cannot_be_resolved_is_refused_when_subscribing() -> None:
    def callback(event: "NotImported") -> None: ...  # type: ignore[name-defined]  # noqa: F821, UP037

    with pytest.raises(CallbackSignatureError, match="NotImported"):
        Bus().subscribe(callback)


async def test_function_without_its_module_finds_its_event_by_name() -> None:
    def callback(event: Any, context: Any) -> Any:
        return event.phase

    travelled = FunctionType(callback.__code__, {}, "travelled")
    travelled.__annotations__ = {"event": "PreFlight", "context": "Gone"}
    bus = Bus()
    bus.subscribe(travelled)
    await bus.publish(Download())
    assert [result.value for result in await bus.publish(PreFlight())] == ["pre_flight"]


async def test_the_plan_is_made_once_for_a_class_and_again_after_a_change() -> None:
    asked = []

    class Meta(type):
        def __subclasscheck__(cls, other: type) -> bool:
            asked.append(other)
            return super().__subclasscheck__(other)

    class Watched(metaclass=Meta):
        pass

    bus = Bus()
    bus.subscribe(Watched, lambda event: None)
    asked.clear()  # the subscription has tried whether it can be asked
    for _ in range(3):
        await bus.publish(Watched())
    assert asked == [Watched]
    bus.subscribe(Other, lambda event: None)
    await bus.publish(Watched())
    assert asked == [Watched, Watched]


def test_events_are_frozen_and_phases_keep_their_names() -> None:
    with pytest.raises(AttributeError):
        PreFlight().config = 1  # type: ignore[misc]
    assert phase_event("pre_download") is phase_event("pre_download")
    assert phase_event("pre_download").__name__ == "PreDownload"
    assert issubclass(PhaseEvent, Event)
    assert repr(PreFlight(config={"large": 1})).rsplit(".", 1)[-1] == "PreFlight()"
