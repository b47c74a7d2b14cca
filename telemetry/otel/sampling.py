"""Which traces are exported: each is kept or dropped whole, when its spans are forwarded.

Everything is recorded, so metrics, journal and page are complete whatever the sampler says.
"""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import sampling
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

import phasebus.telemetry.otel.sdk  # noqa: F401  # before anything of the SDK
from phasebus.telemetry.otel.settings import TraceSettings

_ANY_SPAN = 1
"""A span id for a parent of which only the flags matter."""


class TraceSampler:
    """The sampler that OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG describe.

    Args:
        settings: The variables, as they were read.
    """

    def __init__(self, settings: TraceSettings) -> None:
        self._follows_parents = settings.sampler.startswith("parentbased_")
        root = _root_sampler(settings.sampler.removeprefix("parentbased_"), settings.ratio)
        self._sampler = sampling.ParentBased(root) if self._follows_parents else root

    def keeps(self, trace_id: int, parent_sampled: bool | None = None) -> bool:
        """Return whether the trace is exported.

        Args:
            trace_id: Its number.
            parent_sampled: Whether the parent outside of this program is sampled; None if there is none.
        """
        context = Context()
        if parent_sampled is not None:
            flags = TraceFlags(TraceFlags.SAMPLED if parent_sampled else TraceFlags.DEFAULT)
            parent = NonRecordingSpan(SpanContext(trace_id, _ANY_SPAN, True, flags))
            context = trace.set_span_in_context(parent, context)
        decision = self._sampler.should_sample(context, trace_id, "").decision
        return decision is sampling.Decision.RECORD_AND_SAMPLE

    def keeps_recorded(self, trace_id: int) -> bool:
        """Return whether a trace is exported whose spans another process recorded, with `TraceSettings.engine_sampler`.

        That process has followed the parents of its spans already.
        """
        return self._follows_parents or self.keeps(trace_id)


def _root_sampler(name: str, ratio: float) -> sampling.Sampler:
    if name == "traceidratio":
        return sampling.TraceIdRatioBased(ratio)
    return sampling.ALWAYS_ON if name == "always_on" else sampling.ALWAYS_OFF
