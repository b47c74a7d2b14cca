"""Pods that start a model, as Prometheus sees them: a server with a path for each; the process behind a path can be replaced."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from phasebus.bus import AttributeValue, StepFailed, StepFinished, StepProgress, StepStarted, new_step_id
from phasebus.observers import MetricsObserver
from phasebus.telemetry import Metrics
from tests.support.waiting import wait_until

PHASES = ("pre_initialization", "download", "engine_init")
ENGINE_STEPS = ("load_model", "load_weights", "warm_up")


class Pod:
    """A process that starts a model.

    Args:
        model: The model.
        age: How long it has been starting, in seconds.
    """

    def __init__(self, model: str, *, age: float = 0) -> None:
        self.metrics = Metrics("1")
        self._observer = MetricsObserver(self.metrics)
        self._attributes: dict[str, AttributeValue] = {"model": model, "phases": ",".join(PHASES)}
        self._node, self._phase, self._engine = new_step_id(), new_step_id(), new_step_id()
        self._began_ns = time.time_ns() - round(age * 1e9)
        self._start(self._node, "node", "n", self._attributes)
        self._start(self._phase, "phase", "engine_init")
        self._start(self._engine, "engine", "vllm", {"model": model, "steps": ",".join(ENGINE_STEPS)})

    def finish(self, seconds: float) -> None:
        """Become ready, after the download of a quarter of that time and the start of an engine for half of it.

        A third of the engine's start is the warm-up. The rest is loading the model, of which half is loading weights.
        """
        engine = seconds / 2
        for name, begin, end in (("load_model", 0, 2 / 3), ("load_weights", 1 / 3, 2 / 3), ("warm_up", 2 / 3, 1)):
            step = new_step_id()
            self._start(step, "engine_step", name, parent=self._engine, after=begin * engine)
            self._finish(step, "engine_step", name, (end - begin) * engine, parent=self._engine, after=end * engine)
        self._finish(self._engine, "engine", "vllm", engine, self._attributes, after=engine)
        self._finish(new_step_id(), "phase", "download", seconds / 4)
        self._finish(self._phase, "phase", "engine_init", engine)
        self._finish(self._node, "node", "n", seconds, self._attributes)

    def download(self, done: int) -> None:
        """Have downloaded so many bytes, of a model and of its only file."""
        for kind, step in (("download", "d" * 16), ("file", "f" * 16)):
            self._observer.observe(StepProgress(step=step, kind=kind, name="m", done=done, unit="By"))

    def fail(self, error: Exception) -> None:
        """Fail in the start of the engine."""
        for step, kind, name in (
            (self._engine, "engine", "vllm"),
            (self._phase, "phase", "engine_init"),
            (self._node, "node", "n"),
        ):
            self._observer.observe(
                StepFailed(
                    step=step,
                    kind=kind,
                    name=name,
                    seconds=1,
                    outcome="failed",
                    error=error,
                    attributes=self._attributes,
                )
            )

    def _start(
        self,
        step: str,
        kind: str,
        name: str,
        attributes: Mapping[str, AttributeValue] | None = None,
        *,
        parent: str | None = None,
        after: float = 0,
    ) -> None:
        at = self._began_ns + round(after * 1e9)
        self._observer.observe(
            StepStarted(step=step, parent=parent, kind=kind, name=name, attributes=attributes or {}, time_ns=at)
        )

    def _finish(
        self,
        step: str,
        kind: str,
        name: str,
        seconds: float,
        attributes: Mapping[str, AttributeValue] | None = None,
        *,
        parent: str | None = None,
        after: float = 0,
    ) -> None:
        at = self._began_ns + round(after * 1e9)
        self._observer.observe(
            StepFinished(
                step=step,
                parent=parent,
                kind=kind,
                name=name,
                seconds=seconds,
                attributes=attributes or {},
                time_ns=at,
            )
        )


class PodServer:
    """Serves the metrics of pods at /NUMBER/metrics.

    Attributes:
        pods: The current process of each pod, by its number.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.pods: dict[int, Pod] = {}
        self._scrapes: Counter[int] = Counter()

    def targets(self, job: str, pods: int) -> list[dict[str, object]]:
        """Return the scrape configurations of so many pods."""
        return [
            {
                "job_name": f"{job}-{number}",
                "metrics_path": f"/{number}/metrics",
                "static_configs": [
                    {"targets": [f"127.0.0.1:{self.port}"], "labels": {"instance": f"pod-{number}", "job": job}}
                ],
            }
            for number in range(pods)
        ]

    def wait_for_scrapes(self, pods: int, times: int = 2) -> None:
        """Wait until each of so many pods has been scraped `times` times more."""
        goal = {number: self._scrapes[number] + times for number in range(pods)}
        wait_until(
            lambda: all(self._scrapes[number] >= goal[number] for number in goal), "every pod is scraped", seconds=120
        )

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer a scrape."""
        number = int(handler.path.split("/")[1])
        body, content_type = self.pods[number].metrics.render(handler.headers.get("Accept", ""))
        handler.send_response(200)
        handler.send_header("Content-Type", content_type)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
        self._scrapes[number] += 1


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, pods: PodServer, *arguments: object) -> None:
        self._pods = pods
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self._pods.answer(self)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def pod_server() -> Iterator[PodServer]:
    """Serve pods on a free loopback port until the end of the block."""
    pods = PodServer(0)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, pods))
    pods.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield pods
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
