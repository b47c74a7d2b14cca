"""The keys of a node's context. Callbacks may use these constants, or the equal strings."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from phasebus.bus import Key
from phasebus.initializer.downloads.settings import DownloadMode, ExtraFile
from phasebus.initializer.ray.config import Bundles, Strategy

SKIP_DEFAULT: Final = Key[bool](
    "skip_default",
    validate=TypeAdapter(bool).validate_python,
    doc="True, set at pre_initialization: callbacks of custom_initialization replace the start-up.",
)
NODE_NAME: Final = Key[str](
    "node_name", validate=TypeAdapter(str).validate_python, doc="The name of this node in traces and metrics."
)
MODEL: Final = Key[str](
    "model", validate=TypeAdapter(str).validate_python, doc="The model: a path, or where to download it from."
)
LOCAL_NODE_DOWNLOAD_MODEL: Final = Key[DownloadMode](
    "local_node_download_model",
    validate=TypeAdapter(DownloadMode).validate_python,
    doc="Which of the model's files this node downloads.",
)
DOWNLOAD_DESTINATION: Final = Key[Path | None](
    "download_destination",
    validate=TypeAdapter(Path | None).validate_python,
    doc="The folder the model is downloaded into; None for the default of its source.",
)
EXTRA_FILES: Final = Key[list[ExtraFile]](
    "extra_files",
    validate=TypeAdapter(list[ExtraFile]).validate_python,
    doc="Files to download in addition to the model: pairs of a source and a destination.",
)
DOWNLOAD_RESULT: Final = Key[Any](
    "download_result", doc="The result of the download: path, bytes, seconds, cache hits."
)
PLACEMENT_BUNDLES: Final = Key[Bundles](
    "placement_bundles",
    validate=TypeAdapter(Bundles).validate_python,
    doc='The resources to reserve, a mapping each: [{"CPU": 4}, {"GPU": 1}].',
)
PLACEMENT_STRATEGY: Final = Key[Strategy](
    "placement_strategy",
    validate=TypeAdapter(Strategy).validate_python,
    doc="Ray's placement strategy for the bundles.",
)
PLACEMENT_GROUP: Final = Key[Any]("placement_group", doc="Ray's placement group, once it is reserved; None for none.")
PLACEMENT_BUNDLE: Final = Key[int](
    "placement_bundle",
    validate=TypeAdapter(int).validate_python,
    doc="The index of the bundle in the placement group that the engine's first process runs in.",
)
RUNTIME_ENV: Final = Key[dict[str, Any]](
    "runtime_env", validate=TypeAdapter(dict[str, Any]).validate_python, doc="Ray's runtime_env for the engine's actor."
)
ENGINE_ARGS: Final = Key[dict[str, Any]](
    "engine_args",
    validate=TypeAdapter(dict[str, Any]).validate_python,
    doc="The engine's own arguments by name.",
)
ENGINE_ENV: Final = Key[dict[str, str]](
    "engine_env",
    validate=TypeAdapter(dict[str, str]).validate_python,
    doc="Environment variables of the engine's processes.",
)
ENGINE: Final = Key[Any](
    "engine", doc="The engine, once it answers; one set by custom_initialization is used unchanged."
)

NODE_KEYS: Final[tuple[Key[Any], ...]] = (
    SKIP_DEFAULT,
    NODE_NAME,
    MODEL,
    LOCAL_NODE_DOWNLOAD_MODEL,
    DOWNLOAD_DESTINATION,
    EXTRA_FILES,
    DOWNLOAD_RESULT,
    PLACEMENT_BUNDLES,
    PLACEMENT_STRATEGY,
    PLACEMENT_GROUP,
    PLACEMENT_BUNDLE,
    RUNTIME_ENV,
    ENGINE_ARGS,
    ENGINE_ENV,
    ENGINE,
)
"""All keys of a node's context."""
