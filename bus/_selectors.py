"""Which events a subscriber selects: a type, a union, a runtime protocol, a phase's name, or everything."""

from __future__ import annotations

import dis
import inspect
import logging
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, NewType, Protocol, TypeVar, Union, get_args, get_origin, is_typeddict

from phasebus.bus._checks import nearest, shown
from phasebus.bus._errors import CallbackSignatureError, EventError
from phasebus.bus._events import PhaseEvent
from phasebus.bus._log import log

Events = Any
"""What may be given as `events`: a class, ``A | B``, a tuple of these, a runtime protocol, a phase's name, or `Any`."""


@dataclass(frozen=True, slots=True)
class Selector:
    """A choice of event classes.

    Attributes:
        label: The choice in words, for people.
        matches: Returns whether the events of a class are chosen.
        phase: The name of the phase, if it is chosen by its name.
    """

    label: str
    matches: Callable[[type], bool]
    phase: str | None = None


def event_class(method: str, event: object) -> type:
    """Return `event` if it is a class, as the bus's `method` needs.

    Raises:
        EventError: It is not.
    """
    if isinstance(event, type):
        return event
    raise EventError(f"{method}({shown(event)}): a class of events is needed, such as {method}({type(event).__name__})")


def is_selector(thing: object) -> bool:
    """Return whether `thing` is a choice of events rather than a callback."""
    return (
        thing is Any
        or isinstance(thing, type | str | tuple | list | TypeVar | NewType)
        or get_origin(thing) is not None
        or _is_type_alias(thing)
    )


def _is_type_alias(thing: object) -> bool:
    """Return whether `thing` was made by a ``type`` statement (Python 3.12), or by `typing_extensions` as if it were."""
    return type(thing).__name__ == "TypeAliasType" and hasattr(thing, "__value__")


def _meaning(events: Events) -> Events:
    """Return what a type stands for when the program runs: without aliases, annotations, variables and arguments that say nothing."""
    if _is_type_alias(events):
        return _meaning(events.__value__)
    if isinstance(events, TypeVar):
        return _meaning(events.__bound__ or events.__constraints__ or Any)
    origin: Any = get_origin(events)
    if origin is Annotated:
        return _meaning(events.__origin__)
    if isinstance(origin, type) and origin is not types.UnionType:
        if all(argument in (Any, object) or isinstance(argument, TypeVar) for argument in get_args(events)):
            return origin
        raise CallbackSignatureError(
            f"{_shown(events)} does not choose events: an object does not know the arguments of its type; "
            f"give {origin.__name__}, or a subclass of {_shown(events)} of your own"
        )
    return events


def _shown(events: Events) -> str:
    return str(events).removeprefix("__main__.").removeprefix("typing.")


def _is_union(thing: object) -> bool:
    return isinstance(thing, types.UnionType) or get_origin(thing) is Union


def selector(events: Events) -> Selector:
    """Return `events` as a `Selector`.

    Raises:
        CallbackSignatureError: It is nothing that can choose events.
    """
    events = _meaning(events)
    if events is Any or events is object:
        return Selector("everything", lambda _: True)
    if isinstance(events, str):
        warn_of_unknown_phase(events)
        return Selector(f"phase {events!r}", lambda event: getattr(event, "phase", None) == events, events)
    if isinstance(events, tuple) or _is_union(events):
        if not events:
            raise CallbackSignatureError("() does not choose events; give at least one class, or typing.Any for all")
        parts = [selector(part) for part in (events if isinstance(events, tuple) else get_args(events))]
        return Selector(" | ".join(part.label for part in parts), lambda event: any(p.matches(event) for p in parts))
    if isinstance(events, type):
        if getattr(events, "_is_protocol", False) and events is not Protocol:
            return _protocol_selector(events)
        _check_answers(events)
        return Selector(events.__name__, lambda event: issubclass(event, events))
    if isinstance(events, list) and events and all(isinstance(each, type) for each in events):
        names = [each.__name__ for each in events]
        raise CallbackSignatureError(
            f"[{', '.join(names)}] does not choose events; give the union, {' | '.join(names)}"
        )
    raise CallbackSignatureError(
        f"{shown(events)} does not choose events; give a class, a union of classes, a runtime protocol, "
        "the name of a phase, or typing.Any"
    )


def _check_answers(events: type) -> None:
    """Raise CallbackSignatureError if `issubclass`, which every plan uses, fails with `events`."""
    if issubclass(events, dict) and is_typeddict(events):
        raise CallbackSignatureError(
            f"{events.__name__} is a TypedDict, and its objects are plain dicts when the program runs; "
            "give dict, or make it a dataclass"
        )
    try:
        issubclass(object, events)
    except Exception as error:
        raise CallbackSignatureError(
            f"{events.__name__} does not choose events: issubclass fails with it ({error}); give another class"
        ) from error


def _protocol_selector(protocol: type) -> Selector:
    """Choose the classes that have, or declare, every member of `protocol`.

    `issubclass` refuses protocols with data members, and the plan is made per class, before there is an instance.
    """
    wanted = {
        name
        for base in protocol.__mro__
        if getattr(base, "_is_protocol", False) and base is not Protocol
        for name in (*vars(base), *_annotated(base))
        if name not in _NO_MEMBERS and not name.startswith("_abc_")
    }
    return Selector(f"protocol {protocol.__name__}", lambda event: all(_has(event, name) for name in wanted))


def _has(cls: type, member: str) -> bool:
    """Return whether objects of `cls` have a `member`: a None in its place (as with ``__hash__``) means not."""
    for base in cls.__mro__:
        if member in vars(base):
            return vars(base)[member] is not None or member in _annotated(base)
        if member in _annotated(base) or member in _set_in_init(base):
            return True
    return False


def _set_in_init(cls: type) -> set[str]:
    """Return the attributes that the ``__init__`` of `cls` itself sets."""
    code = getattr(inspect.unwrap(vars(cls).get("__init__")), "__code__", None)  # type: ignore[arg-type]
    if code is None or not code.co_argcount:
        return set()
    own = code.co_varnames[0]
    instructions = [each for each in dis.get_instructions(code) if each.opname != "EXTENDED_ARG"]
    return {
        store.argval
        for load, store in pairwise(instructions)
        if store.opname == "STORE_ATTR" and _last(load.argval) == own
    }


def _last(loaded: object) -> object:
    """Return what an instruction loads last: some load two variables, since Python 3.13."""
    return loaded[-1] if isinstance(loaded, tuple) and loaded else loaded


def _annotated(cls: type) -> Mapping[str, object]:
    """Return the annotations of `cls` itself: since Python 3.14 they are made when asked for, and not in its `vars`."""
    annotations: Mapping[str, object] = getattr(cls, "__annotations__", {})
    return annotations


def warn_of_unknown_phase(phase: str) -> None:
    """Log a warning if no class declares `phase`, but one declares a phase that is spelled almost alike."""
    declared: set[str] = set()
    classes: list[type[PhaseEvent]] = [PhaseEvent]
    for each in classes:
        classes += each.__subclasses__()
        declared.add(each.phase)
    if phase not in declared and (suggestion := nearest(phase, declared, cutoff=0.85)):
        log(logging.WARNING, "no event declares the phase %r%s", phase, suggestion)


class _Bare(Protocol): ...


_NO_MEMBERS = {
    *vars(_Bare),
    *("_is_runtime_protocol", "__non_callable_proto_members__", "__orig_bases__", "__slots__"),
    *("__annotations__", "__annotate_func__", "__annotations_cache__"),
}
"""What the machinery of protocols puts into every one of them."""
