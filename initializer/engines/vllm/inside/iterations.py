"""The engine's iterations while it serves: counted here, in plain numbers, and reported twice a second.

By vLLM's stat-logger interface (`StatLoggerBase`, read from vLLM 0.32), which its front end calls once an iteration.
"""

from __future__ import annotations

import bisect
import os
import time
from collections.abc import Callable
from typing import Any

from phasebus.initializer.engines.vllm.inside.reporter import Reporter
from phasebus.initializer.engines.vllm.inside.spans import start_up_context
from phasebus.initializer.engines.vllm.inside.variables import SAMPLING
from phasebus.telemetry.names import ITERATION_REQUESTS, ITERATION_SECONDS

_REPORT_SECONDS = 0.5
_DEFAULT_SAMPLING = 1000


class Iterations:
    """Counts iterations.

    Args:
        report: Called with all the counts, twice a second at most.
        sample: Called with the beginning, the duration and the attributes of one iteration in `every`.
        every: The sampling interval, in iterations; 0 samples none.
    """

    def __init__(
        self, report: Callable[[dict[str, Any]], None], sample: Callable[[int, int, dict[str, Any]], None], every: int
    ) -> None:
        self._report = report
        self._sample = sample
        self._every = every
        self._seconds = [0] * (len(ITERATION_SECONDS) + 1)
        self._requests = [0] * (len(ITERATION_REQUESTS) + 1)
        self._count = self._seconds_sum = self._requests_sum = 0.0
        self._prompt = self._generation = 0
        self._last_ns = self._reported_ns = 0
        self._busy = False

    def record(self, running: int, waiting: int, cache: float, prompt: int, generation: int) -> None:
        """Count one iteration.

        Args:
            running: The number of requests it worked on.
            waiting: The number of requests that waited meanwhile.
            cache: The share of the KV cache in use, 0 to 1.
            prompt: The number of prompt tokens it computed.
            generation: The number of tokens it generated.
        """
        now = time.monotonic_ns()
        took, self._last_ns = now - self._last_ns, now
        was_busy, self._busy = self._busy, running > 0
        self._prompt += prompt
        self._generation += generation
        if was_busy:  # else the engine was idle, and the time since then belongs to no iteration
            seconds = took / 1e9
            self._count += 1
            self._seconds[bisect.bisect_left(ITERATION_SECONDS, seconds)] += 1
            self._seconds_sum += seconds
            self._requests[bisect.bisect_left(ITERATION_REQUESTS, running)] += 1
            self._requests_sum += running
            if self._every and self._count % self._every == 0:
                self._sample(
                    time.time_ns() - took,
                    took,
                    {"requests": running, "waiting": waiting, "cache": cache, "tokens": prompt + generation},
                )
        if now - self._reported_ns > _REPORT_SECONDS * 1e9 or not self._busy:
            self._reported_ns = now
            self._report(self._counts(waiting, running, cache))

    def _counts(self, waiting: int, running: int, cache: float) -> dict[str, Any]:
        return {
            "seconds": list(self._seconds),
            "seconds_sum": self._seconds_sum,
            "requests": list(self._requests),
            "requests_sum": self._requests_sum,
            "prompt_tokens": self._prompt,
            "generation_tokens": self._generation,
            "running": running,
            "waiting": waiting,
            "cache": cache,
        }


def logger_class(reporter: Reporter, *, served: bool) -> type:
    """Return a class of stat loggers that count for `reporter`.

    Args:
        reporter: The receiver of the counts.
        served: Whether this vLLM serves a /metrics of its own, which has some of the counts.
    """
    from opentelemetry import trace
    from opentelemetry.context import Context
    from vllm.v1.metrics.loggers import StatLoggerBase

    tracer = trace.get_tracer("phasebus")
    start_up = trace.get_current_span(start_up_context()).get_span_context()

    def sample(began_ns: int, took_ns: int, attributes: dict[str, Any]) -> None:
        links = [trace.Link(start_up)] if start_up.is_valid else []
        named = {f"phasebus.{key}": value for key, value in attributes.items()}
        span = tracer.start_span("engine iteration", Context(), links=links, attributes=named, start_time=began_ns)
        span.end(began_ns + took_ns)

    class PhasebusStatLogger(StatLoggerBase):  # type: ignore[misc]
        def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
            def report(counts: dict[str, Any]) -> None:
                reporter.send({"event": "iterations", "engine": engine_index, "served": served, **counts})

            self._iterations = Iterations(report, sample, int(os.environ.get(SAMPLING, _DEFAULT_SAMPLING)))

        def record(
            self, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0
        ) -> None:
            if scheduler_stats is not None:
                self._iterations.record(
                    scheduler_stats.num_running_reqs,
                    scheduler_stats.num_waiting_reqs,
                    scheduler_stats.kv_cache_usage,
                    0 if iteration_stats is None else iteration_stats.num_prompt_tokens,
                    0 if iteration_stats is None else iteration_stats.num_generation_tokens,
                )

        def log_engine_initialized(self) -> None:
            pass

    return PhasebusStatLogger
