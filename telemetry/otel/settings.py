"""The standard OTEL_* variables, read at one gate: a value that cannot be used is one warning and never an error.

The SDK raises for such values, some of them at its import; so it would in the engine's processes, which inherit them.

Source: OpenTelemetry specification, "Environment Variable Specification" and "OTLP exporter configuration".
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Final
from urllib.parse import unquote

from phasebus.telemetry.otel.findings import Findings
from phasebus.telemetry.redaction import redact

SAMPLERS: Final = frozenset(
    f"{parent}{name}" for parent in ("", "parentbased_") for name in ("always_on", "always_off", "traceidratio")
)
"""The samplers that the specification defines and this SDK implements."""

DEFAULT_SAMPLER: Final = "parentbased_always_on"
"""The sampler that the specification makes the default."""

QUEUE_SPANS: Final = 16_384
"""How many spans may wait for a collector that is away, unless OTEL_BSP_MAX_QUEUE_SIZE says otherwise."""

BATCH_SPANS: Final = 512
"""How many spans one request carries at most."""

DELAY_MILLISECONDS: Final = 500
"""How long a span may wait for others before it is exported."""

METRIC_INTERVAL_MILLISECONDS: Final = 60_000
"""The time between two exports of metrics that the specification makes the default."""

_TEMPORALITY: Final = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"


_COUNT_LIMITS: Final = {
    "OTEL_ATTRIBUTE_COUNT_LIMIT": "max_attributes",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "max_span_attributes",
    "OTEL_SPAN_EVENT_COUNT_LIMIT": "max_events",
    "OTEL_SPAN_LINK_COUNT_LIMIT": "max_links",
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT": "max_event_attributes",
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT": "max_link_attributes",
}

_LENGTH_LIMITS: Final = {
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "max_attribute_length",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "max_span_attribute_length",
}

_LOADED: Final = {
    "OTEL_PYTHON_CONTEXT": ("opentelemetry_context", "contextvars_context"),
    "OTEL_PYTHON_METER_PROVIDER": ("opentelemetry_meter_provider", "default_meter_provider"),
}
"""Variables that name an entry point, by which OpenTelemetry loads a part of itself: its group, and the default."""

_EXPORTERS: Final = frozenset({"otlp", "console", "none", "prometheus"})
_MOST_MILLISECONDS: Final = 2**31 - 1  # a thread cannot wait for much longer
_FILES: Final = ("OTEL_CONFIG_FILE", "OTEL_EXPERIMENTAL_CONFIG_FILE")
_COUNT_LIMIT: Final = 128
_UNLIMITED: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanBatches:
    """How spans are collected before they are exported.

    Attributes:
        queue: How many spans may wait.
        batch: How many spans one request carries at most.
        delay: How long a span may wait for others, in seconds.
    """

    queue: int = QUEUE_SPANS
    batch: int = BATCH_SPANS
    delay: float = DELAY_MILLISECONDS / 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSettings:
    """What the OTEL_* variables say of traces.

    Attributes:
        disabled: Whether OTEL_SDK_DISABLED turns OpenTelemetry off.
        exporters: Names of exporters, as OTEL_TRACES_EXPORTER has them; empty for ``none``.
        explicit: Whether OTEL_TRACES_EXPORTER is set.
        sampler: The sampler's name, one of `SAMPLERS`.
        ratio: The share of traces that a ``traceidratio`` sampler keeps, 0 to 1.
        batches: How spans are collected.
        limits: Arguments of the SDK's `SpanLimits`; -1 for no limit.
        resource: The resource attributes of OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME.
    """

    disabled: bool = False
    exporters: tuple[str, ...] = ("otlp",)
    explicit: bool = False
    sampler: str = DEFAULT_SAMPLER
    ratio: float = 1.0
    batches: SpanBatches = SpanBatches()
    limits: Mapping[str, int] = field(default_factory=dict)
    resource: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] = os.environ, findings: Findings | None = None
    ) -> TraceSettings:
        """Return what the variables of `environment` say; what is wrong with them is added to `findings`."""
        read = _Reader(environment, findings or Findings())
        read.configuration_file()
        read.loaded_parts()
        exporters = read.names("OTEL_TRACES_EXPORTER")
        sampler = read.sampler()
        return cls(
            disabled=read.text("OTEL_SDK_DISABLED").lower() == "true",
            exporters=tuple(name for name in exporters or ("otlp",) if name != "none"),
            explicit=bool(exporters),
            sampler=sampler,
            ratio=read.ratio() if sampler.endswith("ratio") else 1.0,
            batches=read.batches(),
            limits=read.limits(),
            resource=read.resource(),
        )

    @property
    def engine_sampler(self) -> str:
        """The sampler for the engine's processes: one that records every span of a start, whose parent is sampled."""
        return self.sampler if self.sampler.startswith("parentbased_") else f"parentbased_{self.sampler}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSettings:
    """What the OTEL_* variables say of metrics.

    The specification makes ``otlp`` the default exporter. Here nothing is pushed unless OTEL_METRICS_EXPORTER names it: most
    collectors that OTEL_EXPORTER_OTLP_ENDPOINT names for traces, such as Jaeger, reject metrics.

    Attributes:
        disabled: Whether OTEL_SDK_DISABLED turns OpenTelemetry off.
        exporters: Names of exporters, as OTEL_METRICS_EXPORTER has them, except ``none`` and ``prometheus``: /metrics is
            served in any case.
        explicit: Always true, because an exporter is never the default.
        interval: The time between two exports, in seconds.
    """

    disabled: bool = False
    exporters: tuple[str, ...] = ()
    explicit: bool = True
    interval: float = METRIC_INTERVAL_MILLISECONDS / 1000

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] = os.environ, findings: Findings | None = None
    ) -> MetricSettings:
        """Return what the variables of `environment` say; what is wrong with them is added to `findings`."""
        findings = findings or Findings()
        read = _Reader(environment, findings)
        settings = cls(
            disabled=read.text("OTEL_SDK_DISABLED").lower() == "true",
            exporters=tuple(name for name in read.names("OTEL_METRICS_EXPORTER") if name not in ("none", "prometheus")),
            interval=read.metric_interval(),
        )
        preference = read.text(_TEMPORALITY).lower()
        if "otlp" in settings.exporters and preference not in ("", "cumulative"):
            findings.reject(_TEMPORALITY, preference, "only cumulative values are exported", "cumulative")
        return settings


class _Reader:
    def __init__(self, environment: Mapping[str, str], findings: Findings) -> None:
        self._environment = environment
        self._findings = findings

    def text(self, name: str) -> str:
        return self._environment.get(name, "").strip()

    def names(self, name: str) -> tuple[str, ...]:
        parts = (part.strip() for part in self.text(name).split(","))
        return tuple(part.lower() if part.lower() in _EXPORTERS else part for part in parts if part)

    def sampler(self) -> str:
        name = self.text("OTEL_TRACES_SAMPLER").lower() or DEFAULT_SAMPLER
        if name in SAMPLERS:
            return name
        self._findings.reject(
            "OTEL_TRACES_SAMPLER", name, f"it is none of {', '.join(sorted(SAMPLERS))}", DEFAULT_SAMPLER
        )
        return DEFAULT_SAMPLER

    def configuration_file(self) -> None:
        """Note that a configuration file of OpenTelemetry is not read; such a file would replace all other variables."""
        if (name := next(filter(self.text, _FILES), None)) is not None:
            self._findings.problems.append(
                f"{name} is set, but phasebus does not read configuration files of OpenTelemetry; "
                "set other variables, such as OTEL_EXPORTER_OTLP_ENDPOINT"
            )

    def loaded_parts(self) -> None:
        """Reject the names of parts that are not installed. OpenTelemetry raises for them, or logs a stack trace."""
        for name, (group, default) in _LOADED.items():
            value = self._environment.get(name, default)
            if not value:
                self._findings.repairs[name] = default
            elif value != default and not entry_points(group=group, name=value):
                self._findings.reject(name, value, "no installed package provides it", default, repair=default)

    def ratio(self) -> float:
        text = self.text("OTEL_TRACES_SAMPLER_ARG") or "1"
        try:
            ratio = float(text)
        except ValueError:
            ratio = -1.0
        if 0.0 <= ratio <= 1.0:
            return ratio
        self._findings.reject("OTEL_TRACES_SAMPLER_ARG", text, "it is no number from 0 to 1", "1.0", repair="1.0")
        return 1.0

    def batches(self) -> SpanBatches:
        batch = self._number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH_SPANS, least=1, repair="512")
        room_for_a_batch = str(min(max(2048, batch), QUEUE_SPANS))
        queue = self._number("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE_SPANS, least=1, repair=room_for_a_batch)
        delay = self._number(
            "OTEL_BSP_SCHEDULE_DELAY", DELAY_MILLISECONDS, least=1, most=_MOST_MILLISECONDS, repair="5000"
        )
        self._milliseconds("OTEL_BSP_EXPORT_TIMEOUT", 30_000)
        if batch > queue:
            self._findings.problems.append(
                f"OTEL_BSP_MAX_QUEUE_SIZE is {queue}, fewer spans than a batch of {batch}; batches are {queue} spans"
            )
            self._findings.repairs["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"] = str(queue)
        return SpanBatches(queue=queue, batch=min(batch, queue), delay=delay / 1000)

    def metric_interval(self) -> float:
        return self._milliseconds("OTEL_METRIC_EXPORT_INTERVAL", METRIC_INTERVAL_MILLISECONDS) / 1000

    def limits(self) -> dict[str, int]:
        limits = {
            argument: self._number(name, _COUNT_LIMIT, least=0, repair=str(_COUNT_LIMIT), empty=_UNLIMITED)
            for name, argument in _COUNT_LIMITS.items()
            if name in self._environment
        }
        lengths = {
            argument: self._number(name, _UNLIMITED, least=0, repair="", empty=_UNLIMITED)
            for name, argument in _LENGTH_LIMITS.items()
            if name in self._environment
        }
        return limits | lengths

    def resource(self) -> dict[str, str]:
        attributes: dict[str, str] = {}
        for item in self.names("OTEL_RESOURCE_ATTRIBUTES"):
            key, equals, value = item.partition("=")
            if equals and key.strip():
                attributes[key.strip()] = unquote(value.strip())
            else:
                self._findings.problems.append(
                    f"OTEL_RESOURCE_ATTRIBUTES has {redact(item)!r}, which is not KEY=VALUE; it is ignored"
                )
        if name := self.text("OTEL_SERVICE_NAME"):
            attributes["service.name"] = name
        return {key: value for key, value in attributes.items() if value}

    def _milliseconds(self, name: str, default: int) -> int:
        return self._number(name, default, least=1, most=_MOST_MILLISECONDS, repair=str(default))

    def _number(
        self,
        name: str,
        default: int,
        *,
        least: int,
        repair: str,
        most: float = float("inf"),
        empty: int | None = None,
    ) -> int:
        text = self.text(name)
        if not text:
            return default if empty is None else empty
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if least <= number <= most:
            return number
        why = f"it is no whole number of at least {least}" + (f" and at most {most:g}" if number > most else "")
        self._findings.reject(name, text, why, "no limit" if default < 0 else str(default), repair=repair)
        return default
