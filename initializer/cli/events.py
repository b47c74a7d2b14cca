"""`phasebus events`: a catalog of every event, phase and key, and of their observers, from the code."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import sys
import textwrap
from collections.abc import Iterable, Iterator
from types import ModuleType, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import click

from phasebus.initializer.cli.events_page import markdown
from phasebus.initializer.cli.failures import reported

_MODULES = (
    "phasebus.bus",
    "phasebus.observers",
    "phasebus.initializer",
    "phasebus.initializer.cluster.events",
    "phasebus.initializer.engines.protocol",
    "phasebus.initializer.integrations.datasets.events",
    "phasebus.initializer.integrations.serving.events",
    "phasebus.initializer.integrations.training.events",
)


@click.command(short_help="List every event, phase and key.")
@click.option(
    "--module", "modules", multiple=True, help="A module of yours with events, keys or callbacks. Repeatable."
)
@click.option("--json", "form", flag_value="json", help="Print JSON.")
@click.option(
    "--markdown", "form", flag_value="markdown", help="Print a page in Markdown, as docs/reference/events.md."
)
def events(modules: tuple[str, ...], form: str | None) -> None:
    """List every event with its fields and its handlers, every phase and every context key."""
    with reported():
        catalog = describe(modules)
        if form == "json":
            click.echo(json.dumps(catalog, indent=2))
        else:
            click.echo("\n".join(markdown(catalog) if form == "markdown" else _lines(catalog)).rstrip())


def describe(modules: Iterable[str] = ()) -> dict[str, list[dict[str, Any]]]:
    """Return the events and keys of phasebus and of `modules`, as data for JSON.

    Raises:
        click.ClickException: A module cannot be imported.
    """
    for name in (*_MODULES, *modules):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise click.ClickException(f"cannot import {name}: {error}") from error
    ours = [module for name, module in sorted(sys.modules.items()) if _is_within(name, ("phasebus", *modules))]
    handlers = list(_handlers(ours))
    return {
        "events": [
            _event(each, handlers) for each in _event_classes() if _is_within(each.__module__, ("phasebus", *modules))
        ],
        "keys": [_key(key, constant, module) for key, constant, module in _keys(ours)],
    }


def _is_within(name: str, packages: Iterable[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _event_classes() -> list[type]:
    from phasebus.bus import Event

    found: dict[type, None] = {Event: None}
    waiting = [Event]
    while waiting:
        for each in waiting.pop(0).__subclasses__():
            if each not in found and getattr(sys.modules.get(each.__module__), each.__name__, None) is each:
                found[each] = None  # found in its module: a slotted dataclass has a second, hidden class
                waiting.append(each)
    return sorted(found, key=lambda each: (each.__module__, inspect.getsourcelines(each)[1]))


def _event(event: type, handlers: list[tuple[str, tuple[type, ...]]]) -> dict[str, Any]:
    return {
        "name": event.__name__,
        "module": event.__module__,
        "import_from": _public_module(event.__module__, event.__name__),
        "doc": _first_line(event.__doc__),
        "phase": phase if isinstance(phase := getattr(event, "phase", None), str) and phase else None,
        "bases": [base.__name__ for base in event.__bases__ if base is not object],
        "fields": {
            each.name: each.type if isinstance(each.type, str) else _type(each.type)
            for each in dataclasses.fields(event)
        },
        "field_docs": _field_docs(event.__doc__),
        "handled_by": sorted(name for name, classes in handlers if issubclass(event, classes)),
    }


def _handlers(modules: list[ModuleType]) -> Iterator[tuple[str, tuple[type, ...]]]:
    """Yield the observers and typed callbacks that `modules` define, each with the event classes of its first argument."""
    for module in modules:
        for name, thing in list(vars(module).items()):
            if isinstance(thing, ModuleType) or name.startswith("_"):
                continue  # asking a module for an attribute may import what it makes when it is used
            if getattr(thing, "__module__", None) != module.__name__:
                continue
            if not isinstance(thing, type) and _is_within(module.__name__, ("phasebus",)):
                continue  # our own functions with an event argument are not callbacks
            function = getattr(thing, "observe", None) if isinstance(thing, type) else thing
            if inspect.isfunction(function) and (classes := _first_annotation(function)):
                yield f"{module.__name__}.{name}", classes


def _first_annotation(function: Any) -> tuple[type, ...]:
    """Return the event classes in the annotation of the first argument of `function`; none for another annotation."""
    from phasebus.bus import Event

    try:
        hints = [hint for name, hint in get_type_hints(function).items() if name != "return"]
    except Exception:  # noqa: BLE001  # names that only type checkers import
        return ()
    classes = (get_args(hints[0]) or (hints[0],)) if hints else ()
    if not all(isinstance(each, type) and issubclass(each, Event) and each is not Event for each in classes):
        return ()
    return classes


def _public_module(module: str, name: str) -> str:
    """Return the package around `module` that exports `name`, the outermost of several; `module` if none does."""
    parts = module.split(".")
    packages = (".".join(parts[:count]) for count in range(1, len(parts)))
    return next((each for each in packages if name in getattr(sys.modules.get(each), "__all__", ())), module)


def _keys(modules: list[ModuleType]) -> Iterator[tuple[Any, str, ModuleType]]:
    """Yield the keys in the top level of `modules`, each once, with its constant and the first module that contains it."""
    from phasebus.bus import Key

    seen: set[int] = set()
    # Modules called keys or events define keys; other modules only import them.
    for module in sorted(modules, key=lambda each: not each.__name__.endswith((".keys", ".events"))):
        for constant, thing in list(vars(module).items()):
            if isinstance(thing, Key) and id(thing) not in seen:
                seen.add(id(thing))
                yield thing, constant, module


def _key(key: Any, constant: str, module: ModuleType) -> dict[str, Any]:
    value = get_args(getattr(key, "__orig_class__", None))
    return {
        "name": str(key),
        "constant": constant,
        "module": module.__name__,
        "import_from": _public_module(module.__name__, constant),
        "type": _type(value[0]) if value else "Any",
        "doc": key.doc,
        "on_conflict": "merge" if callable(key.on_conflict) else key.on_conflict,
        "validated": key.validate is not None,
    }


def _type(hint: Any) -> str:
    """Return a type in the notation of code, without the metadata of ``Annotated``."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _type(arguments[0])
    if origin in (Union, UnionType):
        return " | ".join(map(_type, arguments))
    if origin is Literal:
        return " | ".join(map(repr, arguments))
    if origin is not None and isinstance(origin, type) and not any(isinstance(each, list) for each in arguments):
        return f"{origin.__name__}[{', '.join(map(_type, arguments))}]"
    return "None" if hint is NoneType else str(getattr(origin or hint, "__name__", hint))


def _first_line(doc: str | None) -> str:
    return (inspect.cleandoc(doc).splitlines() or [""])[0] if doc else ""


def _field_docs(doc: str | None) -> dict[str, str]:
    """Return what the section ``Attributes:`` of a docstring says of each field."""
    found: dict[str, str] = {}
    _, _, section = inspect.cleandoc(doc or "").partition("Attributes:\n")
    for line in section.splitlines():
        name, colon, meaning = line.strip().partition(": ")
        if colon and line.startswith("    ") and not line.startswith("     "):
            found[name] = meaning
        elif line.strip() and found:
            found[next(reversed(found))] += f" {line.strip()}"
    return found


def _lines(catalog: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    for event in catalog["events"]:
        phase = f"  phase {event['phase']}" if event["phase"] else ""
        yield f"{event['name']}{phase}  ({event['import_from']})"
        yield textwrap.indent(event["doc"], "    ")
        if event["fields"]:
            yield f"    fields: {', '.join(event['fields'])}"
        if event["handled_by"]:
            yield f"    handled by: {', '.join(name.rpartition('.')[2] for name in event['handled_by'])}"
    yield ""
    for key in catalog["keys"]:
        yield f"{key['name']}: {key['type']}  {key['constant']}  ({key['import_from']})"
        yield textwrap.indent(key["doc"], "    ")
