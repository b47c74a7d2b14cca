"""What an engine tells of its iterations, as metrics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from phasebus.telemetry import names
from phasebus.telemetry.relay.notices import IterationsNotice


class IterationMetrics(Collector):
    """Keeps what each engine told last, and says it when it is scraped.

    What vLLM says in a /metrics of its own is left to it.
    """

    def __init__(self) -> None:
        self._last: dict[int, IterationsNotice] = {}

    def take(self, told: object) -> None:
        """Keep what an engine tells of its iterations; pass over all else."""
        if isinstance(told, IterationsNotice):
            self._last[told.engine] = told

    def collect(self) -> Iterable[Metric]:
        """Return the counts as they were told last."""
        notices = list(self._last.values())
        if not notices:
            return
        duration = HistogramMetricFamily(*names.ITERATION_DURATION, labels=["engine"])
        batch = HistogramMetricFamily(*names.ITERATION_BATCH, labels=["engine"])
        for told in notices:
            engine = [str(told.engine)]
            duration.add_metric(engine, _buckets(names.ITERATION_SECONDS, told.seconds), told.seconds_sum)
            batch.add_metric(engine, _buckets(names.ITERATION_REQUESTS, told.requests), told.requests_sum)
        yield duration
        yield batch
        yield from _of_engines_without_metrics([told for told in notices if not told.served])

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the families are known only once an engine serves."""
        return ()


def _of_engines_without_metrics(notices: Sequence[IterationsNotice]) -> Iterable[Metric]:
    if not notices:
        return
    running = GaugeMetricFamily(*names.ENGINE_RUNNING, labels=["engine"])
    waiting = GaugeMetricFamily(*names.ENGINE_WAITING, labels=["engine"])
    cache = GaugeMetricFamily(*names.ENGINE_CACHE, labels=["engine"])
    tokens = CounterMetricFamily(*names.ENGINE_TOKENS, labels=["engine", "type"])
    for told in notices:
        engine = str(told.engine)
        running.add_metric([engine], told.running)
        waiting.add_metric([engine], told.waiting)
        cache.add_metric([engine], told.cache)
        tokens.add_metric([engine, "prompt"], told.prompt_tokens)
        tokens.add_metric([engine, "generation"], told.generation_tokens)
    yield from (running, waiting, cache, tokens)


def _buckets(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    return [
        (str(float(bound)) if bound is not None else "+Inf", float(count))
        for bound, count in zip([*bounds, None], accumulate(counts), strict=True)
    ]
