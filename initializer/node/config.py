"""The configuration of a node: what is started, and by whom it is watched."""

from __future__ import annotations

from pathlib import Path
from types import UnionType
from typing import Any, Literal, Self, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from phasebus.initializer.downloads.settings import DownloadSettings
from phasebus.initializer.node.keys import Bundles, DownloadMode, ExtraFile, Strategy
from phasebus.initializer.pipeline.callbacks import Callbacks, nearest
from phasebus.initializer.pipeline.errors import ConfigError

M = TypeVar("M", bound=BaseModel)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, use_attribute_docstrings=True)


class PlacementConfig(_Section):
    """What Ray reserves for the engine before it starts."""

    bundles: Bundles | None = None
    """The resources of each bundle, such as {CPU: 4}. By default one bundle with one GPU for each of the engine's
    workers, or with one CPU where there is no GPU. An empty list reserves nothing."""

    strategy: Strategy = "PACK"
    """How the bundles are spread over Ray's nodes."""

    timeout_seconds: float = Field(default=300.0, gt=0)
    """How long to wait for the resources, in seconds."""


class RayConfig(_Section):
    """Which Ray cluster the node is started on."""

    address: str | None = None
    """The address of an existing cluster, or "auto". By default RAY_ADDRESS, or else a local one of our own."""

    num_cpus: int | None = Field(default=None, gt=0)
    """The CPUs a local cluster of our own offers; by default those of the machine."""


class ServiceConfig(_Section):
    """The HTTP service with /metrics, /livez and /readyz."""

    host: str = "127.0.0.1"
    """The address it listens on."""

    port: int | None = Field(default=9464, ge=0, le=65535)
    """Its port; 0 picks a free one, null leaves the service out."""

    trace_url: str | None = Field(default=None, pattern="^https?://")
    """Where the page links to for a trace, with {trace} and {span} in the places of their ids, such as
    http://localhost:16686/trace/{trace}?uiFind={span}; by default PHASEBUS_TRACE_URL."""


class LLMConfig(_Section):
    """One model, and the node or the nodes that serve it."""

    model: str = Field(min_length=1)
    """The model: the path of its folder."""

    name: str | None = None
    """The node's name in traces and metrics; by default that of the machine."""

    callbacks: Callbacks = Field(default_factory=list)
    """Callbacks and observers, in the order they run: callables, or "module:name" for one that is imported."""

    driver_callbacks: Callbacks = Field(default_factory=list)
    """Callbacks and observers of `initialize_cluster` that are called where it is, not on the nodes."""

    nodes: int = Field(default=1, gt=0)
    """On how many of Ray's nodes `initialize_cluster` and `phasebus up` start it."""

    replicas: int | None = Field(default=None, gt=0)
    """How many engines these nodes run; by default one each. Where they are fewer than the nodes, each spans several."""

    retries: int = Field(default=0, ge=0)
    """How often `initialize_cluster` starts a node again that was lost or has failed."""

    engine: Literal["vllm", "none"] = "vllm"
    """What is started; "none" only fetches the model."""

    engine_args: dict[str, Any] = Field(default_factory=dict)
    """The engine's own arguments, by their names: max_model_len, tensor_parallel_size, …"""

    engine_env: dict[str, str] = Field(default_factory=dict)
    """Environment variables of the engine's processes."""

    engine_preload: bool = True
    """Whether the engine's processes are forked from one that has imported the engine while the model was fetched.
    False spawns them, each to import by itself."""

    engine_iteration_sampling: int = Field(default=1000, ge=0)
    """Of how many iterations of the serving engine one gets a span; 0 for none."""

    engine_timeout_seconds: float = Field(default=1800.0, gt=0)
    """How long the engine may take to start, in seconds."""

    runtime_env: dict[str, Any] = Field(default_factory=dict)
    """Ray's runtime_env for the engine's actor."""

    local_node_download_model: DownloadMode = "MODEL_AND_TOKENIZER"
    """Which of the model's files this node fetches."""

    download_destination: Path | None = None
    """The folder the model is fetched into; by default the hub's own cache for hf://, else the user's cache folder."""

    extra_files: list[ExtraFile] = Field(default_factory=list)
    """What is fetched beside the model: pairs of a source and a destination."""

    download: DownloadSettings = Field(default_factory=DownloadSettings)
    """How downloads go about their work."""

    placement: PlacementConfig = Field(default_factory=PlacementConfig)
    """What Ray reserves."""

    ray: RayConfig = Field(default_factory=RayConfig)
    """The Ray cluster."""

    service: ServiceConfig = Field(default_factory=ServiceConfig)
    """The HTTP service of `phasebus up`."""

    @model_validator(mode="after")
    def _check_replicas(self) -> Self:
        more, fewer = sorted((self.nodes, self.replicas or self.nodes), reverse=True)
        if more % fewer:
            raise ValueError(f"{self.replicas} replicas cannot be spread evenly over {self.nodes} nodes")
        return self


def load_config(path: Path) -> LLMConfig:
    """Read a node's configuration from a YAML file.

    Raises:
        ConfigError: It cannot be read, is not YAML, or does not fit; the message names every field at fault, and for a
            field there is none of, the nearest there is.
    """
    return validated(path, read_fields(path), LLMConfig)


def read_fields(path: Path) -> dict[str, Any]:
    """Return the fields that a YAML file has.

    Raises:
        ConfigError: It cannot be read, is not YAML, or gives a field twice.
    """
    from phasebus.initializer.pipeline import yaml_file

    try:
        content = yaml_file.read(path)
    except OSError as error:
        raise ConfigError(f"the configuration {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no fields; the least is one line: `model: /path/to/a/model`")
    return content


def validated(path: Path, fields: dict[str, Any], model: type[M]) -> M:
    """Return `fields`, read from `path`, as a configuration of the class `model`.

    Raises:
        ConfigError: They do not fit.
    """
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, model)}") from error


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return what is wrong, one line a field: its path, what is the matter, and the nearest right name of a typo."""
    lines = []
    for problem in error.errors():
        where = ".".join(map(str, problem["loc"]))
        if problem["type"] == "extra_forbidden":
            *section, name = problem["loc"]
            known = _section_of(model, section).model_fields
            way_out = nearest(str(name), known) or f" (there are {', '.join(known)})"
            lines.append(f"{where}: there is no such field{way_out}")
        else:
            lines.append(f"{where}: {problem['msg']} (it is {problem['input']!r})")
    return lines[0] if len(lines) == 1 else "\n  ".join([f"{len(lines)} fields are wrong", *lines])


def _section_of(model: type[BaseModel], path: list[int | str]) -> type[BaseModel]:
    for part in path:
        if isinstance(part, int):  # which one of a list
            continue
        annotation = model.model_fields[part].annotation
        if get_origin(annotation) is list:
            (annotation,) = get_args(annotation)
        options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
        model = next(each for each in options if isinstance(each, type) and issubclass(each, BaseModel))
    return model
