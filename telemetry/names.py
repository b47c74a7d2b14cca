"""Every name the outside world sees: spans, metrics, labels and their units. Docs, dashboards and tests are held to it.

Rows are keyed by the kind of step, so a new kind needs at most a row here, and without one is still seen: as spans
called by its kind, and in `phasebus_step_duration_seconds`.
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
    """A histogram of how long the steps of a kind took, in seconds, with the gauge of those that run.

    Attributes:
        name: Its name without the unit.
        help: What it says, for people who read /metrics.
        labels: The attributes that are its labels; ``name`` is the step's own name. ``outcome`` is always one more.
        name_label: What the label with the step's name is called; None where it is not a label.
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
        help: What it says.
        attribute: The attribute it adds up; None counts the steps themselves.
        labels: The attributes that are its labels.
    """

    name: str
    help: str
    attribute: str | None
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KindNames:
    """What the steps of one kind are called outside.

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
        Duration("phasebus_cluster_startup_duration", "How long starting a whole cluster took.", ()),
    ),
    "node": KindNames(
        "node init",
        Duration("phasebus_node_startup_duration", "How long a node took from the first phase to ready.", ("model",)),
    ),
    "phase": KindNames(
        "phase {name}",
        Duration("phasebus_phase_duration", "How long a phase of the start-up took.", (), "phase"),
    ),
    "callback": KindNames(
        "callback {name}",
        Duration(
            "phasebus_callback_duration",
            "How long a callback took, by the phase it was called for.",
            ("phase",),
            "callback",
            CALLBACK_BUCKETS,
        ),
    ),
    "download": KindNames(
        "download model",
        Duration("phasebus_download_duration", "How long fetching a model took.", ("model", "source")),
        (
            Count("phasebus_download_bytes_total", "Bytes fetched.", "bytes", ("model", "source", "outcome")),
            Count("phasebus_download_retries_total", "Tries again after a failure.", "retries", ("model", "source")),
        ),
    ),
    "file": KindNames(
        "download file",
        Duration("phasebus_download_file_duration", "How long fetching one file took.", ("model", "source")),
        (Count("phasebus_download_files_total", "Files fetched or found.", None, ("model", "source", "outcome")),),
    ),
    "ray": KindNames(
        "ray {name}",
        Duration("phasebus_ray_duration", "How long a step of bringing Ray up took.", (), "step"),
    ),
    "engine": KindNames(
        "engine init",
        Duration("phasebus_engine_init_duration", "How long the engine took until it answered.", ("model",)),
    ),
    "engine_step": KindNames(
        "engine step {name}",
        Duration("phasebus_engine_step_duration", "How long a step of the engine's start took.", (), "step"),
    ),
    "training": KindNames(
        "training run",
        Duration("phasebus_training_duration", "How long a training run took.", (), "training"),
    ),
    "training_workers": KindNames(
        "training workers",
        Duration("phasebus_training_workers_duration", "How long a group of training workers lived.", (), "training"),
    ),
    "training_report": KindNames(
        "training report",
        Duration(
            "phasebus_training_report_duration",
            "How long the callbacks took that a report of the workers waited for.",
            (),
            "training",
            CALLBACK_BUCKETS,
        ),
    ),
    "dataset": KindNames(
        "dataset run",
        Duration("phasebus_dataset_duration", "How long a pipeline took.", (), "dataset"),
    ),
    "dataset_execution": KindNames(
        "dataset execution",
        Duration("phasebus_dataset_execution_duration", "How long an execution in a pipeline took.", (), "dataset"),
    ),
    "dataset_operator": KindNames(  # what they are called has a value for each function that is mapped
        "dataset operator",
        Duration("phasebus_dataset_operator_duration", "How long an operator of an execution took."),
        (Count("phasebus_dataset_operator_rows_total", "Rows that operators have put out.", "rows", ("outcome",)),),
    ),
    "request": KindNames(
        "request {name}",
        Duration(
            "phasebus_request_duration",
            "How long a request to a served application took, until the end of its response.",
            ("method",),
            "application",
            REQUEST_BUCKETS,
        ),
        (
            Count(
                "phasebus_requests_total",
                "Requests to a served application.",
                None,
                ("application", "method", "route", "status", "outcome"),
            ),
        ),
    ),
}

OTHER_KIND: Final = Duration("phasebus_step_duration", "How long a step of any other kind took.", ("kind",), "step")

READY: Final = ("phasebus_ready", "1 once everything is ready to serve, else 0.")
EVENTS: Final = ("phasebus_events_total", "Step events seen, by class.")
PROGRESS: Final = ("phasebus_progress_bytes_total", "Bytes moved so far by steps of each kind, told while they run.")
START_TIME: Final = ("phasebus_start_time_seconds", "When the start-up began, in seconds since the epoch.")
BUILD_INFO: Final = ("phasebus_build", "The version of phasebus and the run it reports on.")
SUBSCRIBER_CALLS: Final = ("phasebus_subscriber_calls_total", "Calls of a subscriber or observer of the bus.")
SUBSCRIBER_ERRORS: Final = ("phasebus_subscriber_errors_total", "Calls that raised or timed out.")
EVENTS_DROPPED: Final = ("phasebus_events_dropped_total", "Events an observer's full buffer had no room for.")

CLUSTER_NODES: Final = ("phasebus_cluster_nodes", "The nodes of the cluster, by where they stand.", ["state"])
NODE_READY: Final = ("phasebus_cluster_node_ready", "1 once the node is ready to serve, else 0.", ["node"])
NODE_PHASE: Final = ("phasebus_cluster_node_phase", "1 for the phase the node is in.", ["node", "phase"])
NODE_SEEN: Final = (
    "phasebus_cluster_node_last_seen_seconds",
    "When the node was last heard of, in seconds since the epoch.",
    ["node"],
)
NODE_EVENTS: Final = ("phasebus_cluster_node_events_total", "Events of the node that have arrived.", ["node"])
NODE_DROPPED: Final = (
    "phasebus_cluster_node_events_dropped_total",
    "Events of the node that its journal had no room for.",
    ["node"],
)
ITERATION_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds, in seconds, of how long an engine's iteration takes."""

ITERATION_REQUESTS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Upper bounds of how many requests one iteration works on."""

ITERATION_DURATION: Final = (
    "phasebus_engine_iteration_duration_seconds",
    "How long one iteration of the serving engine took.",
)
ITERATION_BATCH: Final = ("phasebus_engine_iteration_requests", "How many requests one iteration worked on.")

# What vLLM's own /metrics says as vllm:num_requests_running and so on; here only where that is not served.
ENGINE_RUNNING: Final = ("phasebus_engine_requests_running", "Requests the engine works on: vllm:num_requests_running.")
ENGINE_WAITING: Final = ("phasebus_engine_requests_waiting", "Requests that wait: vllm:num_requests_waiting.")
ENGINE_CACHE: Final = (
    "phasebus_engine_kv_cache_usage_ratio",
    "The share of the KV cache in use, 0 to 1: vllm:kv_cache_usage_perc.",
)
ENGINE_TOKENS: Final = (
    "phasebus_engine_tokens_total",
    "Tokens computed: vllm:prompt_tokens_total and vllm:generation_tokens_total.",
)


def in_progress(duration: Duration) -> str:
    """Return the name of the gauge beside a histogram: how many of its steps run just now."""
    return duration.name.removesuffix("_duration") + "_in_progress"


def span_name(kind: str, name: str) -> str:
    """Return what the span of a step is called. Names have few values: what varies is an attribute."""
    if kind in KINDS:
        return KINDS[kind].span.format(name=name)
    return f"{kind} {name}"


def span_attribute(key: str) -> str:
    """Return what an attribute of a step is called on its span."""
    return key if "." in key else f"phasebus.{key}"
