"""The supported versions of Ray, and the private parts of Ray that phasebus uses. This module does not import Ray.

docs/reference/supported-versions.md has the table, and tests/integration/versions checks every version of it.
"""

from __future__ import annotations

from typing import Final

from phasebus.initializer.seams import Seam

MINIMUM: Final = (2, 52)

SUPPORTED: Final = (
    "2.52.1",
    "2.53.0",
    "2.54.1",
    "2.55.1",
    "2.56.1",
    "2.57.1",
    "2.58.1",
    "2.59.0",
    "2.60.0",
)
"""The last release of each supported series."""

_SERVE = "phases in Ray Serve LLM"
_TRAIN = "phases of training"
_DATA = "phases of datasets"

_USED: Final = (
    (
        _SERVE,
        "ray.llm._internal.common.callbacks.base",
        *("CallbackBase.on_before_node_init", "CallbackBase.on_after_node_init", "CallbackBase.run_callback"),
        *("CallbackBase.ctx", "CallbackBase.llm_config", "CallbackConfig.callback_kwargs"),
        *("CallbackCtx.worker_node_download_model", "CallbackCtx.placement_group"),
        *("CallbackCtx.runtime_env", "CallbackCtx.run_init_node"),
        "CallbackBase.on_before_download_model_files_distributed",
    ),
    (
        _SERVE,
        "ray.llm._internal.common.utils.download_utils",
        *("NodeModelDownloadable.MODEL_AND_TOKENIZER", "NodeModelDownloadable.TOKENIZER_ONLY"),
        *("NodeModelDownloadable.EXCLUDE_SAFETENSORS", "NodeModelDownloadable.NONE"),
    ),
    (
        _SERVE,
        "ray.llm._internal.serve.core.server.llm_server",
        *("LLMServer.start", "LLMServer.get_deployment_options", "LLMServer._llm_config", "LLMServer.engine"),
    ),
    (
        _SERVE,
        "ray.llm._internal.serve.core.configs.llm_config",
        *("LLMConfig.get_engine_config", "LLMConfig.get_or_create_callback", "LLMConfig.callback_config"),
        "LLMConfig.model_id",
    ),
    (
        _SERVE,
        "ray.llm._internal.serve.engines.vllm.vllm_models",
        *("VLLMEngineConfig.hf_model_id", "VLLMEngineConfig.actual_hf_model_id", "VLLMEngineConfig.engine_kwargs"),
        "VLLMEngineConfig.mirror_config",
    ),
    (_SERVE, "ray.llm._internal.serve.engines.vllm.vllm_engine", "initialize_node"),
    (_SERVE, "ray.llm._internal.serve.utils.node_initialization_utils", "initialize_remote_node"),
    (_SERVE, "ray.llm._internal.common.utils.cloud_utils", "is_remote_path"),
    (_SERVE, "ray.runtime_context", "RuntimeContext.worker"),
    (_SERVE, "ray.experimental.internal_kv", "_internal_kv_put", "_internal_kv_get"),
    (
        _TRAIN,
        "ray.train.v2._internal.execution.callback",
        "ReportCallback.after_report",
        *("WorkerGroupCallback.before_worker_group_start", "WorkerGroupCallback.after_worker_group_start"),
        *("WorkerGroupCallback.after_worker_group_poll_status", "WorkerGroupCallback.before_worker_group_shutdown"),
    ),
    (
        _TRAIN,
        "ray.train.v2._internal.execution.checkpoint.report_handler",
        "ReportCallbackHandler._report_callbacks",
    ),
    (
        _TRAIN,
        "ray.train.v2._internal.execution.worker_group.worker_group",
        *("WorkerGroup._callbacks", "WorkerGroup._clear_state"),
    ),
    (
        _TRAIN,
        "ray.train.v2._internal.execution.worker_group.poll",
        *("WorkerGroupPollStatus.errors", "WorkerGroupPollStatus.worker_statuses", "WorkerStatus.running"),
    ),
    (_TRAIN, "ray.train.v2._internal.execution.training_report", "_TrainingReport.checkpoint"),
    (_TRAIN, "ray.train.v2.api.data_parallel_trainer", "DataParallelTrainer.run_config"),
    (
        _DATA,
        "ray.data._internal.execution.execution_callback",
        *("ExecutionCallback.before_execution_starts", "ExecutionCallback.on_execution_step"),
        *("ExecutionCallback.after_execution_succeeds", "ExecutionCallback.after_execution_fails"),
    ),
    (_DATA, "ray.data.context", "DataContext.custom_execution_callback_classes"),
    (
        _DATA,
        "ray.data._internal.execution.streaming_executor",
        *("StreamingExecutor._topology", "StreamingExecutor.get_stats"),
    ),
    (
        _DATA,
        "ray.data._internal.execution.interfaces.physical_operator",
        *("PhysicalOperator.has_completed", "PhysicalOperator.num_output_rows_total", "PhysicalOperator.metrics"),
    ),
    (_DATA, "ray.data._internal.execution.interfaces.op_runtime_metrics", "OpRuntimeMetrics.row_outputs_taken"),
)
"""What needs them, their module, and their paths there."""

SEAMS: Final = tuple(Seam(module, path, purpose) for purpose, module, *paths in _USED for path in paths)

FIRST_SERIES: Final = {
    "DataContext.custom_execution_callback_classes": (2, 55),
    "PhysicalOperator.has_completed": (2, 54),
}
"""The first series that has a seam, by the seam's path, if that is later than `MINIMUM`."""
