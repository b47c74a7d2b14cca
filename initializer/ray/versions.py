"""The supported versions of Ray, and the private parts of Ray that phasebus uses. This module does not import Ray.

docs/supported-versions.md has the table, and tests/integration/versions checks every version of it.
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

SEAMS: Final = (
    Seam("ray.llm._internal.common.callbacks.base", "CallbackBase.on_before_node_init", _SERVE),
    Seam("ray.llm._internal.common.callbacks.base", "CallbackBase.on_after_node_init", _SERVE),
    Seam("ray.llm._internal.common.callbacks.base", "CallbackBase.run_callback", _SERVE),
    Seam("ray.llm._internal.common.utils.download_utils", "NodeModelDownloadable", _SERVE),
    Seam("ray.llm._internal.serve.core.server.llm_server", "LLMServer.start", _SERVE),
    Seam("ray.llm._internal.serve.core.server.llm_server", "LLMServer.get_deployment_options", _SERVE),
    Seam("ray.train.v2._internal.execution.callback", "ReportCallback", _TRAIN),
    Seam("ray.train.v2._internal.execution.callback", "WorkerGroupCallback", _TRAIN),
    Seam("ray.train.v2._internal.execution.checkpoint.report_handler", "ReportCallbackHandler", _TRAIN),
    Seam("ray.data._internal.execution.execution_callback", "ExecutionCallback", _DATA),
    Seam("ray.data.context", "DataContext.custom_execution_callback_classes", _DATA),
)

FIRST_SERIES: Final = {"DataContext.custom_execution_callback_classes": (2, 55)}
"""The first series that has a seam, by the seam's path, if that is later than `MINIMUM`."""
