"""The catalog of `phasebus events` as a page in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

Entry = dict[str, Any]

_RULES = {"last": "the last write wins", "error": "one writer an event", "merge": "writes are merged"}


def markdown(catalog: dict[str, list[Entry]]) -> Iterator[str]:
    """Yield the lines of the page: the phases, the other events with their fields, and the keys, by what exports them."""
    events = {event["name"]: event for event in catalog["events"]}
    yield "# Events, phases and keys"
    yield ""
    yield "The output of `phasebus events --markdown`; `--module` adds the events and keys of a module of yours."
    yield ""
    yield "## Phases"
    yield ""
    yield from _table(
        ("phase", "event", "meaning", "import from"),
        (
            (_code(each["phase"]), _code(each["name"]), each["doc"], _code(each["import_from"]))
            for _, group in _by_import(events.values())
            for each in group
            if each["phase"]
        ),
    )
    yield "## Events"
    yield ""
    yield "An event has the fields of the event it is a kind of, and those listed here. Observers receive it by its class."
    yield ""
    others = [event for event in events.values() if not event["phase"] or _own_fields(event, events)]
    for module, group in _by_import(others):
        yield f"### `{module}`"
        yield ""
        yield from _table(("event", "kind of", "fields", "meaning"), (_event_row(event, events) for event in group))
    yield "## Keys of the context"
    yield ""
    yield '`context[ENGINE_ARGS]` and `context["engine_args"]` are the same entry; type checkers know the type of the first.'
    yield ""
    for module, group in _by_import(catalog["keys"]):
        yield f"### `{module}`"
        yield ""
        yield from _table(("key", "constant", "type", "meaning", "rules"), map(_key_row, group))


def _by_import(entries: Iterable[Entry]) -> Iterable[tuple[str, Iterable[Entry]]]:
    """Group `entries` by the package that users import them from."""
    return groupby(sorted(entries, key=lambda each: each["import_from"]), key=lambda each: each["import_from"])


def _event_row(event: Entry, events: dict[str, Entry]) -> tuple[str, ...]:
    fields = (f"{_code(f'{name}: {kind}')} {meaning}".rstrip() for name, kind, meaning in _own_fields(event, events))
    return _code(event["name"]), ", ".join(map(_code, event["bases"])), "<br>".join(fields), event["doc"]


def _own_fields(event: Entry, events: dict[str, Entry]) -> list[tuple[str, str, str]]:
    """Return the name, type and meaning of each field that no base of `event` has."""
    inherited = {name for base in event["bases"] for name in events.get(base, {"fields": ()})["fields"]}
    return [
        (name, kind, event["field_docs"].get(name, ""))
        for name, kind in event["fields"].items()
        if name not in inherited
    ]


def _key_row(key: Entry) -> tuple[str, ...]:
    rules = _RULES[key["on_conflict"]] + (", validated" if key["validated"] else "")
    return _code(key["name"]), _code(key["constant"]), _code(key["type"]), key["doc"], rules


def _code(text: str) -> str:
    return f"`{text}`"


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    heads = list(heads)
    for cells in (heads, ["---"] * len(heads), *rows):
        escaped = (cell.replace("|", "\\|") for cell in cells)
        yield f"| {' | '.join(escaped)} |"
    yield ""
