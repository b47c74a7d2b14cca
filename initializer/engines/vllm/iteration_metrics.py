"""What vLLM reports of its iterations while it serves, as metrics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Annotated, Literal

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import Field

from phasebus.telemetry import Notice, Telemetry, names

_EVENT = "iterations"

Count = Annotated[int, Field(ge=0, lt=2**63)]
Amount = Annotated[float, Field(ge=0)]


class IterationsNotice(Notice):
    """What an engine has done since it began to serve, in counts."""

    event: Literal["iterations"]
    """The event that is reported."""

    engine: int = Field(ge=0, lt=1024)
    """The index of the engine behind one front end."""

    served: bool
    """Whether this vLLM serves a /metrics of its own."""

    seconds: tuple[Count, ...] = Field(
        min_length=len(names.ITERATION_SECONDS) + 1, max_length=len(names.ITERATION_SECONDS) + 1
    )
    """How many iterations fell into each bucket of `names.ITERATION_SECONDS`, and above."""

    seconds_sum: Amount
    """How long they all took, in seconds."""

    requests: tuple[Count, ...] = Field(
        min_length=len(names.ITERATION_REQUESTS) + 1, max_length=len(names.ITERATION_REQUESTS) + 1
    )
    """How many iterations fell into each bucket of `names.ITERATION_REQUESTS`, and above."""

    requests_sum: Amount
    """The sum of the requests that each of them worked on."""

    prompt_tokens: Count
    """How many prompt tokens were computed."""

    generation_tokens: Count
    """How many tokens were generated."""

    running: Count
    """How many requests are in progress now."""

    waiting: Count
    """How many requests wait now."""

    cache: Amount
    """The share of the KV cache in use now, 0 to 1."""


class IterationMetrics(Collector):
    """Keeps each engine's last report, and exports it at every scrape.

    What vLLM exports in a /metrics of its own is left out.
    """

    def __init__(self) -> None:
        self._last: dict[int, IterationsNotice] = {}

    def record(self, received: object) -> None:
        """Keep `received` if it is a report of iterations."""
        if isinstance(received, IterationsNotice):
            self._last[received.engine] = received

    def collect(self) -> Iterable[Metric]:
        """Return the counts of the last reports."""
        notices = list(self._last.values())
        if not notices:
            return
        duration = HistogramMetricFamily(*names.ITERATION_DURATION.header, labels=names.ITERATION_DURATION.labels)
        batch = HistogramMetricFamily(*names.ITERATION_BATCH.header, labels=names.ITERATION_BATCH.labels)
        for notice in notices:
            engine = [str(notice.engine)]
            duration.add_metric(engine, _buckets(names.ITERATION_SECONDS, notice.seconds), notice.seconds_sum)
            batch.add_metric(engine, _buckets(names.ITERATION_REQUESTS, notice.requests), notice.requests_sum)
        yield duration
        yield batch
        yield from _of_engines_without_metrics([notice for notice in notices if not notice.served])

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the families are known only once an engine serves."""
        return ()


def watch_iterations(telemetry: Telemetry) -> None:
    """Export what engines report of their iterations to `telemetry`. May be called again."""
    if telemetry.relay.accept(_EVENT, IterationsNotice):
        iterations = IterationMetrics()
        telemetry.metrics.registry.register(iterations)
        telemetry.relay.listen(iterations.record)


def _of_engines_without_metrics(notices: Sequence[IterationsNotice]) -> Iterable[Metric]:
    if not notices:
        return
    running = GaugeMetricFamily(*names.ENGINE_RUNNING.header, labels=names.ENGINE_RUNNING.labels)
    waiting = GaugeMetricFamily(*names.ENGINE_WAITING.header, labels=names.ENGINE_WAITING.labels)
    cache = GaugeMetricFamily(*names.ENGINE_CACHE.header, labels=names.ENGINE_CACHE.labels)
    tokens = CounterMetricFamily(*names.ENGINE_TOKENS.header, labels=names.ENGINE_TOKENS.labels)
    for notice in notices:
        engine = str(notice.engine)
        running.add_metric([engine], notice.running)
        waiting.add_metric([engine], notice.waiting)
        cache.add_metric([engine], notice.cache)
        tokens.add_metric([engine, "prompt"], notice.prompt_tokens)
        tokens.add_metric([engine, "generation"], notice.generation_tokens)
    yield from (running, waiting, cache, tokens)


def _buckets(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    return [
        (str(float(bound)) if bound is not None else "+Inf", float(count))
        for bound, count in zip([*bounds, None], accumulate(counts), strict=True)
    ]
