"""Spans as every exporter can encode them: one odd value must not cost a whole batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace.status import Status
from opentelemetry.util.types import AttributeValue

import phasebus.telemetry.otel.sdk  # noqa: F401  # before anything of the SDK
from phasebus.printable import bounded_text, printable_text, printable_value

_MOST_CHARACTERS = 16_384
_MOST_VALUES = 1024


def printable_span(span: ReadableSpan) -> ReadableSpan:
    """Return `span` with texts in valid Unicode and of bounded length, and numbers that fit into OTLP's.

    Source: opentelemetry-proto, ``AnyValue`` (UTF-8 text, signed 64-bit integers, doubles).
    """
    return ReadableSpan(
        name=_text(span.name),
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=_attributes(span.attributes),
        events=[Event(_text(each.name), _attributes(each.attributes), each.timestamp) for each in span.events],
        links=span.links,
        kind=span.kind,
        status=Status(
            span.status.status_code, None if span.status.description is None else _text(span.status.description)
        ),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _attributes(attributes: Mapping[str, Any] | None) -> dict[str, AttributeValue]:
    return {_text(key): _value(value) for key, value in (attributes or {}).items()}


def _value(value: Any) -> AttributeValue:
    """Return `value` as an attribute; a list whose items are not all of one kind becomes a list of texts."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes | bytearray | memoryview):
        return _plain(value)
    items = [_plain(each) for each in value[:_MOST_VALUES]]
    same = len({type(each) for each in items}) <= 1
    return cast("AttributeValue", items if same else [str(each) for each in items])


def _plain(value: Any) -> str | int | float | bool:
    plain = printable_value(value)
    return _text(plain) if isinstance(plain, str) else plain


def _text(text: str) -> str:
    return printable_text(bounded_text(text, _MOST_CHARACTERS))
