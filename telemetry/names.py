"""Every exported name: spans, metrics, labels and their units. Docs, dashboards and tests are checked against it.

Rows are keyed by the kind of step. A kind without a row is exported too: as spans called by its kind, and in
`phasebus_step_duration_seconds`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

START_UP_BUCKETS: Final = (
    0.01,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    20,
    30,
    45,
    60,
    90,
    120,
    180,
    300,
    600,
    1200,
    3600,
)
"""Upper bounds, in seconds: from a callback to the start of the largest models."""

CALLBACK_BUCKETS: Final = (0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300)

REQUEST_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""Upper bounds, in seconds: from a health check to a long text, streamed."""


@dataclass(frozen=True, slots=True)
class Duration:
    """A histogram of the durations of the steps of a kind, in seconds, and the gauge of the running ones.

    Attributes:
        name: Its name without the unit.
        help: Its HELP text on /metrics.
        labels: The attributes that are its labels; ``outcome`` is always one more.
        name_label: The name of the label with the step's own name; None if that is not a label.
        buckets: Upper bounds, in seconds.
    """

    name: str
    help: str
    labels: tuple[str, ...] = ()
    name_label: str | None = None
    buckets: tuple[float, ...] = START_UP_BUCKETS


@dataclass(frozen=True, slots=True)
class Count:
    """A counter fed from one attribute of a step, when the step ends.

    Attributes:
        name: Its name, `_total` included.
        help: Its HELP text on /metrics.
        attribute: The attribute it adds up; None counts the steps themselves.
        labels: The attributes that are its labels.
    """

    name: str
    help: str
    attribute: str | None
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KindNames:
    """The exported names of the steps of one kind.

    Attributes:
        span: The name of their spans; ``{name}`` stands for the step's own.
        duration: Their histogram.
        counts: Their counters.
    """

    span: str
    duration: Duration
    counts: tuple[Count, ...] = ()


KINDS: Final[Mapping[str, KindNames]] = {
    "cluster": KindNames(
        "cluster startup",
        Duration("phasebus_cluster_startup_duration", "Duration of the start of a whole cluster, in seconds.", ()),
    ),
    "node": KindNames(
        "node init",
        Duration(
            "phasebus_node_startup_duration",
            "Duration of a node's start, from the first phase to ready, in seconds.",
            ("model",),
        ),
    ),
    "phase": KindNames(
        "phase {name}",
        Duration("phasebus_phase_duration", "Duration of a phase, in seconds.", (), "phase"),
    ),
    "callback": KindNames(
        "callback {name}",
        Duration(
            "phasebus_callback_duration",
            "Duration of a callback, by the phase it was called for, in seconds.",
            ("phase",),
            "callback",
            CALLBACK_BUCKETS,
        ),
    ),
    "download": KindNames(
        "download model",
        Duration("phasebus_download_duration", "Duration of fetching a model, in seconds.", ("model", "source")),
        (
            Count(
                "phasebus_download_bytes_total",
                "Bytes of models fetched over the network.",
                "bytes",
                ("model", "source", "outcome"),
            ),
            Count(
                "phasebus_download_retries_total",
                "Attempts that a download repeated after a failure.",
                "retries",
                ("model", "source"),
            ),
        ),
    ),
    "file": KindNames(
        "download file",
        Duration(
            "phasebus_download_file_duration",
            "Duration of fetching one file of a model, in seconds.",
            ("model", "source"),
        ),
        (
            Count(
                "phasebus_download_files_total",
                "Files of models, by what a download did with them.",
                None,
                ("model", "source", "outcome"),
            ),
        ),
    ),
    "ray": KindNames(
        "ray {name}",
        Duration(
            "phasebus_ray_duration", "Duration of a step of starting Ray or connecting to it, in seconds.", (), "step"
        ),
    ),
    "engine": KindNames(
        "engine init",
        Duration(
            "phasebus_engine_init_duration", "Duration of the engine's start, until it answers, in seconds.", ("model",)
        ),
    ),
    "engine_step": KindNames(
        "engine step {name}",
        Duration("phasebus_engine_step_duration", "Duration of a step of the engine's start, in seconds.", (), "step"),
    ),
    "training": KindNames(
        "training run",
        Duration("phasebus_training_duration", "Duration of a training run, in seconds.", (), "training"),
    ),
    "training_workers": KindNames(
        "training workers",
        Duration(
            "phasebus_training_workers_duration", "Lifetime of a group of training workers, in seconds.", (), "training"
        ),
    ),
    "training_report": KindNames(
        "training report",
        Duration(
            "phasebus_training_report_duration",
            "Duration of the callbacks that a report of the workers waited for, in seconds.",
            (),
            "training",
            CALLBACK_BUCKETS,
        ),
    ),
    "dataset": KindNames(
        "dataset run",
        Duration("phasebus_dataset_duration", "Duration of a dataset pipeline, in seconds.", (), "dataset"),
    ),
    "dataset_execution": KindNames(
        "dataset execution",
        Duration(
            "phasebus_dataset_execution_duration",
            "Duration of an execution in a dataset pipeline, in seconds.",
            (),
            "dataset",
        ),
    ),
    "dataset_operator": KindNames(  # their names are not a label: there is one for each mapped function
        "dataset operator",
        Duration("phasebus_dataset_operator_duration", "Duration of an operator of a dataset execution, in seconds."),
        (
            Count(
                "phasebus_dataset_operator_rows_total",
                "Rows that dataset operators have produced.",
                "rows",
                ("outcome",),
            ),
        ),
    ),
    "request": KindNames(
        "request {name}",
        Duration(
            "phasebus_request_duration",
            "Duration of a request to a served application, until the end of its response, in seconds.",
            ("method",),
            "application",
            REQUEST_BUCKETS,
        ),
        (
            Count(
                "phasebus_requests_total",
                "Requests to a served application that have ended.",
                None,
                ("application", "method", "route", "status", "outcome"),
            ),
        ),
    ),
}

OTHER_KIND: Final = Duration(
    "phasebus_step_duration", "Duration of a step of any other kind, in seconds.", ("kind",), "step"
)

READY: Final = ("phasebus_ready", "1 if everything is ready to serve, else 0.")
EVENTS: Final = ("phasebus_events_total", "Events of steps, by the name of their class.")
PROGRESS: Final = ("phasebus_progress_bytes_total", "Bytes moved by steps, counted while they run.")
START_TIME: Final = ("phasebus_start_time_seconds", "Time at which the run began, in seconds since the epoch.")
BUILD_INFO: Final = ("phasebus_build", "Version of phasebus.")
SUBSCRIBER_CALLS: Final = ("phasebus_subscriber_calls_total", "Calls of a subscriber or observer of the bus.")
SUBSCRIBER_ERRORS: Final = (
    "phasebus_subscriber_errors_total",
    "Calls of a subscriber or observer that raised or timed out.",
)
EVENTS_DROPPED: Final = ("phasebus_events_dropped_total", "Events dropped because the buffer of an observer was full.")
SPANS_DROPPED: Final = (
    "phasebus_spans_dropped_total",
    "Spans that were not exported: the queue was full, or the exporter refused them.",
)
RELAY_REJECTED: Final = (
    "phasebus_relay_rejected_total",
    "Requests, spans and notices that the relay rejected: without its token, or not valid.",
)

CLUSTER_NODES: Final = ("phasebus_cluster_nodes", "Nodes of the cluster, by state.", ["state"])
NODE_READY: Final = ("phasebus_cluster_node_ready", "1 if the node is ready to serve, else 0.", ["node"])
NODE_PHASE: Final = ("phasebus_cluster_node_phase", "1 for the phase that runs on the node.", ["node", "phase"])
NODE_SEEN: Final = (
    "phasebus_cluster_node_last_seen_seconds",
    "Time of the last message of the node, in seconds since the epoch.",
    ["node"],
)
NODE_EVENTS: Final = (
    "phasebus_cluster_node_events_total",
    "Lines of the node's journal that the hub has received.",
    ["node"],
)
NODE_DROPPED: Final = (
    "phasebus_cluster_node_events_dropped_total",
    "Events of the node that were dropped because the buffer of its journal was full.",
    ["node"],
)
NODE_REJECTED: Final = (
    "phasebus_cluster_node_lines_rejected_total",
    "Lines of the node's journal that the hub could not decode.",
    ["node"],
)
ITERATION_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the duration of an engine's iteration, in seconds."""

ITERATION_REQUESTS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Upper bounds of the number of requests that one iteration works on."""

ITERATION_DURATION: Final = (
    "phasebus_engine_iteration_duration_seconds",
    "Duration of one iteration of the serving engine, in seconds.",
)
ITERATION_BATCH: Final = (
    "phasebus_engine_iteration_requests",
    "Requests that one iteration of the serving engine works on.",
)

# vLLM's own /metrics has these as vllm:num_requests_running and so on; exported only where vLLM does not serve that.
ENGINE_RUNNING: Final = (
    "phasebus_engine_requests_running",
    "Requests that the engine works on, as in vllm:num_requests_running.",
)
ENGINE_WAITING: Final = (
    "phasebus_engine_requests_waiting",
    "Requests that wait for the engine, as in vllm:num_requests_waiting.",
)
ENGINE_CACHE: Final = (
    "phasebus_engine_kv_cache_usage_ratio",
    "Share of the KV cache in use, 0 to 1, as in vllm:kv_cache_usage_perc.",
)
ENGINE_TOKENS: Final = (
    "phasebus_engine_tokens_total",
    "Tokens computed, as in vllm:prompt_tokens_total and vllm:generation_tokens_total.",
)


def in_progress(duration: Duration) -> str:
    """Return the name of the gauge beside a histogram: the number of its steps that run."""
    return duration.name.removesuffix("_duration") + "_in_progress"


def in_progress_help(duration: Duration) -> str:
    """Return the HELP text of that gauge."""
    return f"Number of running steps whose duration will be in {duration.name}_seconds."


def span_name(kind: str, name: str) -> str:
    """Return the name of the span of a step. Span names have few values; what varies is an attribute."""
    if kind in KINDS:
        return KINDS[kind].span.format(name=name)
    return f"{kind} {name}"


def span_attribute(key: str) -> str:
    """Return the name of a step's attribute on its span."""
    return key if "." in key else f"phasebus.{key}"
