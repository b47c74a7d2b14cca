"""The start of a Serve application, observed in the program that builds it: from the build until Serve reports it running.

A thread of its own asks Serve for the state, so that neither the build nor `serve.run` waits. The replicas join the trace
by their TRACEPARENT. Where no program observes the application, one of its replicas does, from the request to deploy it.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import anyio
import anyio.to_thread

from phasebus.bus import Bus, PhasebusError, new_step_id
from phasebus.initializer.integrations.ray_serve.past_steps import PastStep, publish_past
from phasebus.initializer.integrations.ray_serve.shared_trace import SharedTrace
from phasebus.initializer.integrations.ray_serve.status import (
    DEPLOY_FAILED,
    DEPLOYING,
    HEALTHY,
    RUNNING,
    ApplicationState,
    applications,
)
from phasebus.initializer.pipeline.wiring import observe_all
from phasebus.telemetry import Telemetry, redact

logger = logging.getLogger("phasebus.serve")

SERVE: Final = "serve"
"""The kind of the steps of an application: ``application``, ``deployment``, ``replica``."""

JOINED: Final = "PHASEBUS_SERVE_APPLICATION"
"""The variable of a replica that is set if its TRACEPARENT names the start of its application."""

_POLL_SECONDS: Final = 0.5
_NEVER_DEPLOYED_SECONDS: Final = 600.0
_EXIT_SECONDS: Final = 2.0
_CLOCK_SECONDS: Final = 5.0
"""How far the clock of Serve's controller may be behind, in seconds."""

States = Callable[[], Sequence[ApplicationState] | None]


class ApplicationError(PhasebusError):
    """Raised where an application was not deployed, or its deployment failed."""


@dataclass(slots=True)
class _Deployment:
    step: str
    model: str
    past: PastStep | None = None
    ended: bool = False


class ApplicationStart:
    """The start of the application that this process builds.

    Args:
        telemetry: Exports its spans.
        states: Returns the state of Serve's applications.
        poll_seconds: The pause between two calls of `states`, in seconds.
        shared: The trace of the application, if this process is one of its replicas; None in the program that builds it.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        states: States = applications,
        *,
        poll_seconds: float = _POLL_SECONDS,
        shared: SharedTrace | None = None,
    ) -> None:
        self._telemetry = telemetry
        self._states = states
        self._poll_seconds = poll_seconds
        self._shared = shared
        self._began_ns = time.time_ns() if shared is None else shared.deployed_ns
        self._deployments: dict[str, _Deployment] = {}
        self._closing = threading.Event()
        self._root: PastStep | None = None
        self._thread = threading.Thread(target=self._run, name="phasebus serve application", daemon=True)

    @property
    def ended(self) -> bool:
        """Whether the application runs, or will not run."""
        return self._thread.ident is not None and not self._thread.is_alive()

    def add(self, deployment: str, model: str) -> Mapping[str, str]:
        """Observe a deployment, too; return the variables by which its replicas join the trace.

        Args:
            deployment: The name that Serve knows it by.
            model: Its model.
        """
        found = self._deployments.setdefault(deployment, _Deployment(self._step_of(deployment), model))
        if self._thread.ident is None:
            self._thread.start()
            atexit.register(self.close)
        traceparent = self._telemetry.identity.traceparent(found.step)
        if not self._telemetry.tracing.keeps_run:
            traceparent = f"{traceparent[:-2]}00"
        return {"TRACEPARENT": traceparent, JOINED: "1"}

    def _step_of(self, deployment: str) -> str:
        return new_step_id() if self._shared is None else self._shared.step_of(deployment)

    def close(self) -> None:
        """Stop to observe; export what there is, for `_EXIT_SECONDS` at most."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join(_EXIT_SECONDS)

    def _run(self) -> None:
        try:
            anyio.run(self._observe)
        except Exception as error:  # noqa: BLE001  # the application starts whatever its observer lacks
            logger.warning("the start of the application is not observed any more: %s", redact(str(error)))

    async def _observe(self) -> None:
        identity = self._telemetry.identity
        async with self._telemetry, Bus("serve application", timing=True) as bus:
            observe_all(bus, self._telemetry)
            attributes = {"run": identity.run, "node": identity.node}
            self._root = PastStep(
                bus,
                SERVE,
                "application",
                self._began_ns,
                parent=identity.parent,
                attributes=attributes,
                step=None if self._shared is None else self._shared.root,
            )
            await self._root.begin()
            error: Exception | None = None
            try:
                await self._until_running(bus, self._root.id)
            except ApplicationError as failure:
                error = failure
            for each in self._deployments.values():
                if each.past is not None and not each.ended:
                    await each.past.end(error=error)
            await self._root.end(error=error)
            if self._shared is not None:
                await anyio.to_thread.run_sync(self._shared.end)

    async def _until_running(self, bus: Bus, root: str) -> None:
        """Return once the application runs.

        Raises:
            ApplicationError: It will not.
        """
        seen: ApplicationState | None = None
        while True:
            states = await anyio.to_thread.run_sync(self._states)
            found = self._own(states or ())
            if found is not None:
                if seen is None:
                    await publish_past(bus, "ray", "submit_application", self._began_ns, found.deployed_ns, root)
                seen = found
                await self._update(bus, root, found)
                if found.status == DEPLOY_FAILED:
                    raise ApplicationError(found.message or "the application was not deployed")
                if found.status == RUNNING:
                    return
            elif seen is not None and states is not None:
                raise ApplicationError(f"the application {seen.name} was deleted before it was running")
            waited = (time.time_ns() - self._began_ns) / 1e9
            if self._closing.is_set() or (seen is None and waited > _NEVER_DEPLOYED_SECONDS):
                raise ApplicationError("the program ended, or did not deploy the application that it built")
            await anyio.to_thread.run_sync(self._closing.wait, self._poll_seconds)

    def _own(self, states: Sequence[ApplicationState]) -> ApplicationState | None:
        """Return the application that was deployed since the build and has one of its deployments; else the latest one."""
        if self._shared is not None:
            deployed = (self._shared.application, self._shared.deployed_ns)
            return next((state for state in states if (state.name, state.deployed_ns) == deployed), None)
        since = self._began_ns - int(_CLOCK_SECONDS * 1e9)
        recent = [state for state in states if state.deployed_ns >= since]
        own = [state for state in recent if any(self._named(name, state) for name in self._deployments)]
        return max(own, key=lambda state: state.deployed_ns, default=None)

    @staticmethod
    def _named(deployment: str, state: ApplicationState) -> str | None:
        """Return the full name of a deployment in an application: Serve LLM puts the name of its class before it."""
        names = (name for name in state.deployments if name == deployment or name.endswith(f":{deployment}"))
        return next(names, None)

    async def _update(self, bus: Bus, root: str, state: ApplicationState) -> None:
        """Publish what has changed of the deployments."""
        if self._shared is not None:  # the replicas of each join this trace
            for each_name in state.deployments:
                self._deployments.setdefault(each_name, _Deployment(self._step_of(each_name), ""))
        for name, each in tuple(self._deployments.items()):
            full = self._named(name, state)
            if full is None or each.ended:
                continue
            if each.past is None:
                attributes = {"deployment": full, "application": state.name, "model": each.model}
                began_ns = max(self._began_ns, state.deployed_ns)
                each.past = PastStep(
                    bus, SERVE, "deployment", began_ns, parent=root, attributes=attributes, step=each.step
                )
                await each.past.begin()
            if state.deployments[full] == HEALTHY and state.status != DEPLOYING:
                each.ended = True
                await each.past.end()
