"""Spans as every exporter can encode them: one odd value must not cost a whole batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace.status import Status
from opentelemetry.util.types import AttributeValue

import phasebus.telemetry.otel.sdk  # noqa: F401  # before anything of the SDK

_MOST_CHARACTERS = 16_384
_MOST_VALUES = 1024
_INT64 = range(-(2**63), 2**63)


def printable_span(span: ReadableSpan) -> ReadableSpan:
    """Return `span` with texts in valid Unicode and of bounded length, and numbers that fit into OTLP's.

    Source: opentelemetry-proto, ``AnyValue`` (UTF-8 text, signed 64-bit integers, doubles).
    """
    return ReadableSpan(
        name=printable_text(span.name),
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=_attributes(span.attributes),
        events=[Event(printable_text(each.name), _attributes(each.attributes), each.timestamp) for each in span.events],
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code, _description(span.status.description)),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def printable_text(text: str) -> str:
    """Return `text` in valid Unicode, cut after 16384 characters."""
    return text[:_MOST_CHARACTERS].encode(errors="replace").decode()


def printable_value(value: Any) -> AttributeValue:
    """Return `value`, or a text that stands for it, as an attribute of a span."""
    if isinstance(value, str):
        return printable_text(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if value in _INT64 else hex(value)[:_MOST_CHARACTERS]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [printable_text(str(each)) for each in value[:_MOST_VALUES]] if _mixed(value) else list(_same(value))
    return printable_text(str(value))


def _same(values: Sequence[Any]) -> Sequence[Any]:
    return [printable_value(each) for each in values[:_MOST_VALUES]]


def _mixed(values: Sequence[Any]) -> bool:
    kinds = {type(printable_value(each)) if isinstance(each, str | int | float) else object for each in values}
    return len(kinds) > 1 or object in kinds


def _attributes(attributes: Mapping[str, Any] | None) -> dict[str, AttributeValue]:
    return {printable_text(key): printable_value(value) for key, value in (attributes or {}).items()}


def _description(text: str | None) -> str | None:
    return None if text is None else printable_text(text)
