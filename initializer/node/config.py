"""The configuration of a node."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from phasebus.initializer.downloads.settings import DownloadMode, DownloadSettings, ExtraFile
from phasebus.initializer.engines.protocol import EngineError
from phasebus.initializer.engines.registry import DEFAULT_ENGINE, check_installed
from phasebus.initializer.pipeline.callbacks import Callbacks
from phasebus.initializer.pipeline.settings import FreeFields, Section, read_fields, validated
from phasebus.initializer.ray.config import PlacementConfig, RayConfig
from phasebus.telemetry.service import NO_TOKEN, OWN_TOKEN, Access

MOST_NODES = 10_000
"""Maximum number of nodes; a larger number is a mistake."""

_SHORTEST_TOKEN = 8


class ServiceConfig(Section):
    """The HTTP service with /metrics, /livez and /readyz."""

    host: str = Field(default="127.0.0.1", min_length=1)
    """The address it listens on."""

    port: int | None = Field(default=9464, ge=0, le=65535)
    """Its port; 0 picks a free one, null starts no service. A taken port is replaced by the next free one."""

    hosts: list[str] = Field(default_factory=list)
    """Host names that it accepts in requests, in addition to addresses, the machine's name and names of private networks;
    by default PHASEBUS_HOSTS, separated by commas."""

    token: SecretStr | None = None
    """The token that requests need, except those of the probes: Authorization: Bearer TOKEN, or once /?token=TOKEN in a
    browser; by default PHASEBUS_TOKEN. phasebus watch sends PHASEBUS_TOKEN. Without a token, an address that is not loopback
    serves the probes and /metrics only, and the rest to phasebus watch of the same user on the same machine; with `none`, it
    serves everything to every client."""

    trace_url: str | None = Field(default=None, pattern="^https?://")
    """URL of a trace for the links on the page, with the placeholders {trace} and {span}, such as
    http://localhost:16686/trace/{trace}?uiFind={span}; PHASEBUS_TRACE_URL by default."""

    linger_seconds: float | None = Field(default=None, ge=0, le=3600)
    """How long /metrics, /readyz and the page stay up after a failed start, in seconds, so that a scraper sees the failure.
    By default 35 in Kubernetes, and elsewhere if other machines can reach the address and standard error is no terminal; 0
    otherwise. A signal ends it at once."""

    @field_validator("token")
    @classmethod
    def _token_is_long(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None and token.get_secret_value() != NO_TOKEN and len(token) < _SHORTEST_TOKEN:
            raise ValueError(f"a token has at least {_SHORTEST_TOKEN} characters; {NO_TOKEN!r} needs no token")
        return token

    @property
    def access(self) -> Access:
        """The host names and the token, as the type that the service expects."""
        token = None if self.token is None else self.token.get_secret_value()
        own = Access(hosts=tuple(self.hosts), token=token, own_token=OWN_TOKEN)
        return own.or_else(Access.from_environment())


class ServeConfig(Section):
    """The engine's own HTTP server: for vLLM, its OpenAI-compatible one."""

    host: str = Field(default="127.0.0.1", min_length=1)
    """The address it listens on."""

    port: int = Field(default=8000, ge=0, le=65535)
    """Its port; 0 picks a free one. A port in use is an error if it was configured for one node. The default is replaced by
    the next free one, and so is the port of each further engine of a cluster on the same machine."""

    args: FreeFields = Field(default_factory=dict)
    """The server's own arguments by name: api_key, chat_template, tool_call_parser, …"""

    drain_seconds: float = Field(default=5.0, ge=0, le=3600)
    """Maximum time for running requests to finish when the node ends, in seconds."""

    @property
    def exact(self) -> bool:
        """Whether a port in use is an error."""
        return "port" in self.model_fields_set and self.port != 0

    def with_next_free_port(self) -> ServeConfig:
        """Return the same settings for one of several engines: each uses the first free port from the configured one on."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return ServeConfig.model_construct(_fields_set=self.model_fields_set - {"port"}, **fields)


class LLMConfig(Section):
    """One model, and the node or the nodes that serve it."""

    model: str = Field(min_length=1)
    """The model: the path of its folder, or where to download it from (hf://org/name, s3://…, https://…)."""

    name: str | None = None
    """The node's name in traces and metrics; the host name by default."""

    callbacks: Callbacks = Field(default_factory=list)
    """Callbacks and observers, in the order they run: callables, or "module:name" to import one."""

    driver_callbacks: Callbacks = Field(default_factory=list)
    """Callbacks and observers that run in the process that calls `initialize_cluster`, not on the nodes."""

    nodes: int = Field(default=1, gt=0, le=MOST_NODES)
    """Number of Ray nodes on which `initialize_cluster` and `phasebus up` start the model."""

    replicas: int | None = Field(default=None, gt=0, le=MOST_NODES)
    """Number of engines on these nodes; one per node by default. With fewer engines than nodes, each spans several nodes."""

    retries: int = Field(default=0, ge=0, le=1000)
    """Maximum number of times `initialize_cluster` restarts a node that was lost or has failed."""

    engine: str = DEFAULT_ENGINE
    """The name of the engine to start; `phasebus engines` lists the names. "none" only fetches the model."""

    engine_args: FreeFields = Field(default_factory=dict)
    """The engine's own arguments by name: max_model_len, tensor_parallel_size, …"""

    engine_env: dict[str, str] = Field(default_factory=dict)
    """Environment variables of the engine's processes."""

    engine_preload: bool = True
    """Whether to fork the engine's processes from one that imports the engine during the download. With false, each
    process is spawned and imports by itself."""

    forkserver: Literal["owned", "keep"] = "owned"
    """The process that the engine's processes are forked from: owned ends with the engine. keep uses one that stays on the
    machine, and leaves one behind if there is none; `phasebus forkserver stop`, or an hour without an engine, ends it."""

    engine_iteration_sampling: int = Field(default=1000, ge=0)
    """One in this many iterations of the serving engine gets a span; 0 for none."""

    engine_timeout_seconds: float = Field(default=1800.0, gt=0, allow_inf_nan=False)
    """Maximum time for the engine to start, in seconds."""

    runtime_env: FreeFields = Field(default_factory=dict)
    """Ray's runtime_env for the engine's actor."""

    local_node_download_model: DownloadMode = "MODEL_AND_TOKENIZER"
    """Which of the model's files this node downloads."""

    download_destination: Path | None = None
    """The folder the model is downloaded into; by default the hub's own cache for hf://, else the user's cache folder."""

    extra_files: list[ExtraFile] = Field(default_factory=list)
    """Files to download in addition to the model: pairs of a source and a destination."""

    download: DownloadSettings = Field(default_factory=DownloadSettings)
    """Settings of downloads."""

    placement: PlacementConfig = Field(default_factory=PlacementConfig)
    """Resources that Ray reserves."""

    ray: RayConfig = Field(default_factory=RayConfig)
    """The Ray cluster."""

    service: ServiceConfig = Field(default_factory=ServiceConfig)
    """The HTTP service of `phasebus up`."""

    serve: ServeConfig | None = Field(default_factory=ServeConfig)
    """The engine's own HTTP server, part of a node's readiness; null serves no requests."""

    @field_validator("engine")
    @classmethod
    def _check_engine(cls, name: str) -> str:
        try:
            return check_installed(name)
        except EngineError as error:
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _check_forkserver(self) -> Self:
        if self.forkserver == "keep" and not self.engine_preload:
            raise ValueError("forkserver: keep forks the engine's processes, and engine_preload: false spawns them")
        return self

    @model_validator(mode="after")
    def _check_replicas(self) -> Self:
        more, fewer = sorted((self.nodes, self.replicas or self.nodes), reverse=True)
        if more % fewer:
            raise ValueError(f"{self.replicas} replicas cannot be spread evenly over {self.nodes} nodes")
        return self


def load_config(path: Path, assignments: Iterable[str] = ()) -> LLMConfig:
    """Read a node's configuration from a YAML file, with the environment variables that it refers to.

    Args:
        path: The file.
        assignments: Fields that replace those of the file: ``name.of.field=VALUE``, with a YAML value.

    Raises:
        ConfigError: It cannot be read, is not YAML, or is not valid. The message names every wrong field and, for an
            unknown one, the nearest known name.
    """
    return validated(path, read_fields(path, assignments), LLMConfig)
