"""The forms a callback may have, read from its signature once, when it is subscribed.

A callback takes ``(event)``, ``(event, context)``, or, in the short form, ``(phase, config, data)``.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections import ChainMap
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from enum import Enum
from types import MethodType, SimpleNamespace
from typing import Any, TypeVar, get_args, get_type_hints

from phasebus.bus._checks import shown
from phasebus.bus._context import ReadableContext
from phasebus.bus._errors import CallbackSignatureError
from phasebus.bus._events import Event, PhaseEvent
from phasebus.bus._functions import attribute_of, function_of, has_code, is_async, name_of

Callback = Callable[..., Any]
E = TypeVar("E")
Handler = Callable[[E], Any] | Callable[[E, Any], Any] | Callable[[str, Any, Any], Any]
"""A callback for events `E`, as far as types can say what a callback is."""

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Form(Enum):
    """The arguments that a callback is called with."""

    EVENT = "event"
    EVENT_AND_CONTEXT = "event, context"
    SHORT = "phase, config, data"


@dataclass(frozen=True, slots=True)
class Shape:
    """What the signature of a callback says.

    Attributes:
        form: The arguments it is called with.
        awaited: Whether it is known to return a coroutine. Others may still do so; their results are examined.
    """

    form: Form
    awaited: bool


def shape_of(callback: Callback) -> Shape:
    """Read the form of `callback` from its signature.

    Raises:
        CallbackSignatureError: It takes neither one, two nor three positional arguments.
    """
    if not callable(callback):
        called = "; give the function itself, without calling it" if inspect.iscoroutine(callback) else ""
        raise CallbackSignatureError(
            f"{shown(callback)} is not callable; a callback is a function or has __call__{called}"
        )
    check_no_callback_class(callback)
    _check_no_event_class(callback)
    function = function_of(callback)
    if has_code(function) and (inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)):
        raise CallbackSignatureError(
            f"{name_of(callback)!r} is a generator, which nothing would run; it must not yield"
        )
    try:
        parameters = _parameters(callback)
    except ValueError:  # some builtins have no signature; they are called with the event alone
        return Shape(Form.EVENT, awaited=False)
    positional = [p for p in parameters if p.kind in _POSITIONAL]
    required = [p for p in positional if p.default is p.empty]
    stray = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters) and len(positional) < 2:
        form = Form.EVENT_AND_CONTEXT
    elif len(required) == 3 or (positional and positional[0].name == "phase" and len(positional) >= 3):
        form = Form.SHORT
    elif len(required) == 2 or (len(required) < 2 <= len(positional) and _is_context(callback, positional[1])):
        form = Form.EVENT_AND_CONTEXT
    else:
        form = Form.EVENT
    if positional and positional[0].name == "self" and inspect.isfunction(callback):
        raise CallbackSignatureError(
            f"{name_of(callback)!r} is a method, and the bus has no object to call it on; subscribe the method of an "
            f"object instead, as in subscribe(event, self.{name_of(callback)}) in __init__"
        )
    if form is Form.SHORT and {p.name for p in positional[:2]} & {"event", "context"}:
        raise CallbackSignatureError(_does_not_fit(callback, parameters))
    if stray or not parameters or len(required) > 3 or (form is Form.EVENT and not positional):
        raise CallbackSignatureError(_does_not_fit(callback, parameters))
    return Shape(form, awaited=is_async(callback))


def _parameters(callback: Callback) -> list[inspect.Parameter]:
    """Return the parameters that `callback` is called with.

    A decorator that passes on what it is called with (``*args``) has those of the function it wraps. One that names its own may
    supply others to the function itself, so there they count.

    Raises:
        ValueError: It has no signature.
    """
    try:
        wrapped = list(inspect.signature(callback).parameters.values())
    except (ValueError, TypeError):
        raise
    except Exception:  # noqa: BLE001  # an object the __getattr__ of which raises something else than AttributeError
        return list(inspect.signature(MethodType(function_of(callback), callback)).parameters.values())
    try:
        own = list(inspect.signature(callback, follow_wrapped=False).parameters.values())
    except ValueError:  # implemented in C, as the wrapper of `functools.cache` is
        return wrapped
    return wrapped if any(p.kind is p.VAR_POSITIONAL for p in own) else own


def _is_context(callback: Callback, parameter: inspect.Parameter) -> bool:
    """Return whether an optional second argument is for the context, by its name or its annotation."""
    if parameter.name in ("context", "data"):
        return True
    try:
        hint = _resolved(callback, parameter)
    except Exception:  # noqa: BLE001  # it means nothing at run time
        return False
    return any(isinstance(each, type) and issubclass(each, ReadableContext) for each in (hint, *get_args(hint)))


def check_no_callback_class(thing: object) -> None:
    """Raise CallbackSignatureError if `thing` is a class whose objects are callbacks or observers."""
    if isinstance(thing, type) and ({"__call__", "observe"} & {name for base in thing.__mro__ for name in vars(base)}):
        raise CallbackSignatureError(
            f"{thing.__name__} is a class, and its objects are callbacks or observers; give one of them: {thing.__name__}(…)"
        )


def _check_no_event_class(thing: object) -> None:
    """Raise CallbackSignatureError if `thing` is a class of events, as in ``subscribe(A, B)`` where ``A | B`` is meant."""
    if isinstance(thing, type) and (issubclass(thing, Event) or is_dataclass(thing)):
        raise CallbackSignatureError(
            f"{thing.__name__} is a class of events, and no callback; choose several events with a union, A | {thing.__name__}. "
            f"A callback that makes one is a function: lambda event: {thing.__name__}(…)"
        )


def _does_not_fit(callback: Callback, parameters: list[inspect.Parameter]) -> str:
    return (
        f"{name_of(callback)!r} takes {inspect.Signature(parameters)}; "
        "a callback takes (event), (event, context) or (phase, config, data), by position"
    )


def events_of(callback: Callback, form: Form, default: Any) -> Any:
    """Return which events `callback` is for, by the annotation of its first argument; `default` if it has none.

    Raises:
        CallbackSignatureError: The annotation names something that cannot be found.
    """
    if form is Form.SHORT:
        return PhaseEvent
    try:
        first = next(p for p in _parameters(callback) if p.kind in _POSITIONAL)
    except (ValueError, StopIteration):
        return default
    if first.annotation is first.empty:
        return default
    try:
        hint = _resolved(callback, first)
    except Exception as error:
        raise CallbackSignatureError(
            f"the annotation {first.annotation!r} of {name_of(callback)!r} cannot be resolved ({error}); "
            "import the event at module level, or name the events when subscribing"
        ) from error
    return default if hint is Any else hint


def check_event(callback: Callback, form: Form, event: type) -> None:
    """Raise CallbackSignatureError if the annotation of `callback` names a class that no `event` can be of.

    Protocols and classes that may be inherited together with the event's are no contradiction, nor is what cannot be resolved.
    """
    try:
        hint = events_of(callback, form, Any)
    except CallbackSignatureError:
        return
    if hint is Any or not isinstance(hint, type) or form is Form.SHORT or getattr(hint, "_is_protocol", False):
        return
    if issubclass(event, hint) or issubclass(hint, event) or getattr(event, "_is_protocol", False):
        return
    raise CallbackSignatureError(
        f"{name_of(callback)!r} is for {hint.__name__}, as its annotation says, and is to be subscribed to {event.__name__}"
    )


def _resolved(callback: Any, parameter: inspect.Parameter) -> Any:
    """Return what the annotation of `parameter` means. The other annotations need not mean anything at run time.

    A function that was pickled by value, as Ray does with those of a script or a notebook, has left behind what only its
    annotations name. Its event is then found by its name.
    """
    while isinstance(callback, functools.partial):
        callback = callback.func
    function = inspect.unwrap(callback if attribute_of(callback, "__wrapped__") is not None else function_of(callback))
    alone = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    type_parameters = {each.__name__: each for each in getattr(function, "__type_params__", ())}
    known = getattr(function, "__globals__", {})
    try:
        return get_type_hints(alone, known, ChainMap(type_parameters, known))[parameter.name]
    except NameError:
        return get_type_hints(alone, known, ChainMap(type_parameters, known, _events_by_name()))[parameter.name]


def _events_by_name() -> dict[str, Any]:
    """Return the event classes at the top of any module that is loaded, those whose names are the only ones of their kind."""
    found: dict[str, set[type]] = {}
    classes: list[type] = [Event]
    for each in classes:
        classes += each.__subclasses__()
        if getattr(sys.modules.get(each.__module__), each.__name__, None) is each:
            found.setdefault(each.__name__, set()).add(each)  # one with several bases comes as often
    return {name: events.pop() for name, events in found.items() if len(events) == 1}
