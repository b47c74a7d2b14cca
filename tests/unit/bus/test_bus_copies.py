"""Copies and pickles: what an event, a key, a context and a bus are in another place."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest

from phasebus.bus import Bus, Context, InvalidValueError, Key, ReadOnlyContext, phase_event

PORT: Key[int] = Key("port", validate=int)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_copy_of_a_key_is_the_key(duplicate: Callable[[Any], Any]) -> None:
    assert duplicate(PORT) is PORT


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_copy_of_a_context_has_its_rules_and_history_and_is_independent(duplicate: Callable[[Any], Any]) -> None:
    context = Context({"names": ["a"]}, keys=[PORT], author="me")
    context["port"] = "80"
    context.apply("lock", 1, "callback", threading.Lock())  # an event that cannot be copied
    other = duplicate(context)
    other["port"] = "81"
    with pytest.raises(InvalidValueError, match="'me' wrote"):
        other["port"] = "none"
    assert (context["port"], other["port"]) == (80, 81)
    assert [change.value for change in other.history("port")] == [80, 81]
    assert [change.value for change in context.history("port")] == [80]
    assert (other["names"] is context["names"]) == (duplicate is copy.copy)


def _use(path: Callable[[Any], Any]) -> list[Any]:
    """Return what became of contexts of all sorts that a callback and an observer sent by `path`."""
    received: list[Any] = []
    bus = Bus()

    @bus.subscribe(type(threading.Lock()))
    async def callback(event: Any, context: Context) -> None:
        context["b"] = 2
        received.extend(path(each) for each in (context, ReadOnlyContext(context)))

    context = Context({"a": 1}, keys=[PORT])
    with pytest.raises(StopIteration):
        bus.publish(threading.Lock(), context).send(None)
    received.append(path(context))
    return received


@pytest.mark.parametrize("path", [lambda context: pickle.loads(pickle.dumps(context)), copy.copy])
def test_context_that_is_sent_elsewhere_arrives_as_a_context_with_its_values(path: Callable[[Any], Any]) -> None:
    for received in _use(path):
        assert type(received) is Context
        assert received == {"a": 1, "b": 2}
        received["c"] = 3


def test_event_of_a_phase_that_is_only_a_name_is_pickled_and_copied() -> None:
    event = phase_event("made up")(config={"a": 1})
    for other in (pickle.loads(pickle.dumps(event)), copy.copy(event), copy.deepcopy(event)):
        assert other == event
        assert type(other) is type(event)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_bus_refuses_to_be_copied_and_says_what_to_do(duplicate: Callable[[Any], Any]) -> None:
    with pytest.raises(
        TypeError, match="the bus 'mine' can be neither copied nor sent to another process; make one there"
    ):
        duplicate(Bus("mine"))
