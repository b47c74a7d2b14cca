"""The parts of Ray Serve LLM that phasebus uses, and a check of its version. Read from Ray 2.60.

`LLMConfig.callback_config`, `LLMConfig.server_cls` and `ray.serve.llm` are public. The arguments of a callback are private:
`ray/llm/_internal/common/callbacks/base.py`, and the engine's configuration that `get_engine_config()` returns.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from ray import __version__ as ray_version
from ray.llm._internal.common.callbacks.base import CallbackBase
from ray.llm._internal.common.utils.download_utils import NodeModelDownloadable
from ray.llm._internal.serve.core.server.llm_server import LLMServer

from phasebus.bus import Bus, Context, PhasebusError, subscribe_all
from phasebus.initializer.integrations.ray_serve.joining import join_application, observe_shared
from phasebus.initializer.integrations.ray_serve.node_initialization import initialize_in_replica
from phasebus.initializer.integrations.ray_serve.origin import replica_origin
from phasebus.initializer.integrations.ray_serve.preloading import early_preloading, preload_engine
from phasebus.initializer.integrations.ray_serve.replica import DOWNLOAD, ENGINE_START, ReplicaStart
from phasebus.initializer.integrations.ray_serve.status import is_driver
from phasebus.initializer.node.events import PrePlacementGroup
from phasebus.initializer.node.keys import (
    ENGINE_ARGS,
    ENGINE_ENV,
    LOCAL_NODE_DOWNLOAD_MODEL,
    MODEL,
    NODE_KEYS,
    PLACEMENT_BUNDLES,
    PLACEMENT_GROUP,
    PLACEMENT_STRATEGY,
    RUNTIME_ENV,
    SKIP_DEFAULT,
)
from phasebus.initializer.pipeline.callbacks import import_callbacks

logger = logging.getLogger("phasebus.serve")

_IMPORTED_NS: Final = time.time_ns()

_PACKAGE: Final = "phasebus.initializer.integrations.ray_serve"

READ_FROM: Final = "2.60"
_SEAMS: Final = (
    (CallbackBase, ("on_before_node_init", "on_after_node_init", "run_callback")),
    (LLMServer, ("start", "get_deployment_options")),
)


class RayServeError(PhasebusError):
    """Raised when the installed Ray lacks a part that phasebus needs."""


def check_ray(version: str = ray_version, seams: Sequence[tuple[type, Sequence[str]]] = _SEAMS) -> None:
    """Raise RayServeError if Ray lacks a class or method that is used; warn of an untested version.

    Args:
        version: The version of Ray.
        seams: The classes, and the names of their methods that are used.
    """
    missing = [f"{cls.__name__}.{name}" for cls, names in seams for name in names if not hasattr(cls, name)]
    if missing:
        raise RayServeError(
            f"Ray {version} has no {', '.join(missing)}, which phasebus needs; it supports Ray {READ_FROM}: "
            "install that, or remove callback_config and server_cls"
        )
    if not version.startswith(f"{READ_FROM}."):
        logger.warning("phasebus supports Ray Serve LLM of Ray %s and is not tested with %s", READ_FROM, version)


class BusCallback(CallbackBase):  # type: ignore[misc]  # Ray has no types
    """Runs callbacks of phasebus from Ray's hooks: before and after the download, and before the engine starts.

    ``callback_config={"callback_class": "phasebus.initializer.integrations.ray_serve.BusCallback", "callback_kwargs":
    {"callbacks": ["my_module:custom_download"]}}``. The spans and metrics of the engine's start are included.
    `BusServer` in ``server_cls`` adds the phases of the placement, and reports an engine start that fails.

    Args:
        llm_config: Ray's configuration of the replica.
        callbacks: Callbacks and observers, or ``module:name`` to import one.
        host: The address of the replica's own /metrics.
        port: Its port; 0 picks a free one, None starts no service.
        forkserver: What the engine's processes are forked from: "owned", a process that ends with the replica; or "keep", one
            that stays on the node for the replicas to come. By default PHASEBUS_FORKSERVER, or else "owned".
        ray_arguments: The arguments that Ray adds.

    Raises:
        RayServeError: The installed Ray lacks a part, or `forkserver` has another value.
    """

    def __init__(
        self,
        llm_config: Any,
        *,
        callbacks: Sequence[Any] = (),
        host: str = "127.0.0.1",
        port: int | None = 0,
        forkserver: Literal["owned", "keep"] | None = None,
        **ray_arguments: Any,
    ) -> None:
        check_ray()
        if forkserver not in (None, "owned", "keep"):
            raise RayServeError(f"forkserver is {forkserver!r}; it is 'owned' or 'keep'")
        application = application_name()
        if application is not None:  # this process is a replica
            preload_engine(forkserver)
        super().__init__(llm_config=llm_config, **ray_arguments)
        if application is not None:
            initialize_in_replica(self.ctx.runtime_env)
        engine = llm_config.get_engine_config()
        name, deployment = replica_name(llm_config.model_id), deployment_name()
        origin = replica_origin(name, application, deployment=deployment)
        if origin.shared is not None and deployment is not None:
            observe_shared(origin.shared, deployment, llm_config.model_id)
        self._replica: ReplicaStart | None = ReplicaStart(
            name,
            llm_config.model_id,
            llm_config,
            import_callbacks(callbacks),
            {
                MODEL: engine.actual_hf_model_id,
                LOCAL_NODE_DOWNLOAD_MODEL: self.ctx.worker_node_download_model.name,
                PLACEMENT_GROUP: self.ctx.placement_group,
                RUNTIME_ENV: self.ctx.runtime_env or {},
                ENGINE_ARGS: dict(engine.engine_kwargs),
            },
            host=host,
            port=port,
            origin=origin,
            imported_ns=_IMPORTED_NS,
        )

    @property
    def replica(self) -> ReplicaStart:
        """The start of this replica. The copies that Ray sends to its tasks have none."""
        if self._replica is None:
            raise RayServeError("this copy of a BusCallback carries Ray's context to a download and has no replica")
        return self._replica

    async def on_before_node_init(self) -> None:
        """Run the callbacks up to pre_download, and apply their changes to Ray's download."""
        context = await self.replica.wait_for(DOWNLOAD)
        mode = context[LOCAL_NODE_DOWNLOAD_MODEL]
        self.ctx.worker_node_download_model = NodeModelDownloadable[mode]
        self.ctx.placement_group = context[PLACEMENT_GROUP]
        self.ctx.runtime_env = context[RUNTIME_ENV]
        if mode == "NONE" or context.get(SKIP_DEFAULT):
            self.ctx.run_init_node = False
        engine = self.llm_config.get_engine_config()
        if context[MODEL] != engine.actual_hf_model_id:
            engine.hf_model_id = context[MODEL]

    async def on_after_node_init(self) -> None:
        """Run the callbacks from post_download to pre_engine_init, and apply their changes to Ray's engine."""
        engine = self.llm_config.get_engine_config()
        self.replica.context[MODEL] = engine.actual_hf_model_id
        self.replica.finish(DOWNLOAD)
        context = await self.replica.wait_for(ENGINE_START)
        engine.engine_kwargs = dict(context[ENGINE_ARGS])
        env_vars = {**context[RUNTIME_ENV].get("env_vars", {}), **context[ENGINE_ENV]}
        self.ctx.runtime_env = {**context[RUNTIME_ENV], "env_vars": env_vars}

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for a copy in Ray's download task; the replica cannot be pickled, because it has threads."""
        return {**self.__dict__, "_replica": None}


class BusServer(LLMServer):  # type: ignore[misc]  # Ray has no types
    """Ray's LLMServer, with all phases: ``server_cls="phasebus.initializer.integrations.ray_serve.BusServer"``.

    Its callbacks are those of the `BusCallback` in the same configuration.
    """

    async def start(self) -> None:
        """Start the engine, and report how its start ended."""
        callback = self._llm_config.get_or_create_callback()
        if not isinstance(callback, BusCallback):
            raise RayServeError(
                f"server_cls is BusServer, and callback_config names {type(callback).__name__}; "
                "name phasebus.initializer.integrations.ray_serve.BusCallback there"
            )
        replica = callback.replica
        replica.reports_engine = True
        try:
            await super().start()
        except Exception as error:
            replica.fail(error)
            raise
        replica.finish(ENGINE_START, self.engine)
        await replica.wait_for_end()

    @classmethod
    def get_deployment_options(cls, llm_config: Any) -> dict[str, Any]:
        """Return Serve's options of the deployment, with the placement that callbacks of pre_placement_group set."""
        check_ray()
        options: dict[str, Any] = super().get_deployment_options(llm_config)
        if "placement_group_bundles" in options:
            context = Context(
                {
                    PLACEMENT_BUNDLES: options["placement_group_bundles"],
                    PLACEMENT_STRATEGY: options["placement_group_strategy"],
                },
                keys=NODE_KEYS,
            )
            publish_placement(
                import_callbacks(llm_config.callback_config.callback_kwargs.get("callbacks", ())), context
            )
            options["placement_group_bundles"] = context[PLACEMENT_BUNDLES]
            options["placement_group_strategy"] = context[PLACEMENT_STRATEGY]
        _add_variables(options, _early_preloading(llm_config))
        _join_application(llm_config, options)
        return options


def _early_preloading(llm_config: Any) -> Mapping[str, str]:
    """Return the variables by which replicas begin their fork server early; empty if another class decides on it."""
    configured = llm_config.callback_config
    is_ours = configured.callback_class in (BusCallback, f"{_PACKAGE}.{BusCallback.__name__}")
    return early_preloading(configured.callback_kwargs) if is_ours else {}


def _join_application(llm_config: Any, options: dict[str, Any]) -> None:
    """Make the replicas of a deployment join the trace of the application that this program builds."""
    if not is_driver():  # a task of Ray's that builds an application ends before the application runs
        return
    name = options.get("name") or llm_config.model_id.replace("/", "--").replace(".", "_")
    environment = options["ray_actor_options"]["runtime_env"].get("env_vars", {})
    _add_variables(options, join_application(name, llm_config.model_id, environment))


def _add_variables(options: dict[str, Any], variables: Mapping[str, str]) -> None:
    """Add variables to the environment of the replicas of a deployment."""
    if variables:
        actor = options["ray_actor_options"]
        runtime_env = actor["runtime_env"]
        actor["runtime_env"] = {**runtime_env, "env_vars": {**runtime_env.get("env_vars", {}), **variables}}


def publish_placement(callbacks: Sequence[Any], context: Context) -> None:
    """Call `callbacks` for pre_placement_group, while the application is built and has no replica."""
    from anyio.from_thread import start_blocking_portal

    async def publish() -> None:
        async with Bus("placement") as bus:
            subscribe_all(bus, callbacks)
            await bus.publish(PrePlacementGroup(), context)

    with start_blocking_portal() as portal:
        portal.call(publish)


def application_name() -> str | None:
    """Return the name of this replica's application; None outside Serve."""
    from ray import serve

    try:
        return str(serve.get_replica_context().app_name)
    except Exception:  # noqa: BLE001  # Serve's own error is in a private module
        return None


def deployment_name() -> str | None:
    """Return the name of this replica's deployment; None outside Serve."""
    from ray import serve

    try:
        return str(serve.get_replica_context().deployment)
    except Exception:  # noqa: BLE001  # Serve's own error is in a private module
        return None


def replica_name(model: str) -> str:
    """Return the name of this replica: its id in Serve, or the model outside Serve."""
    from ray import serve

    try:
        return str(serve.get_replica_context().replica_id.unique_id)
    except Exception:  # noqa: BLE001  # Serve's own error is in a private module
        return model
