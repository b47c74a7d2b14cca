"""The trace of an application whose start no program observes: with `BusCallback` alone, or after `serve deploy`.

Its replicas derive the same ids from what Serve's controller reports, and one of them exports the spans that theirs belong to.
Private seam: Ray's key-value store (`ray.experimental.internal_kv`, read from Ray 2.60), which selects that one.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from phasebus.telemetry.otel import TraceSampler, TraceSettings

_NAMESPACE: Final = b"phasebus"
_STARTS: Final = b"starts"
_ENDED: Final = b"ended"


@dataclass(frozen=True, slots=True)
class SharedTrace:
    """The trace of one deployment of an application.

    Attributes:
        application: The name of the application.
        deployed_ns: When Serve's controller got the request to deploy it, in nanoseconds since the epoch.
    """

    application: str
    deployed_ns: int

    @property
    def trace(self) -> str:
        """Its id, 32 hexadecimal digits."""
        return self._digest("trace")[:32]

    @property
    def root(self) -> str:
        """The id of the step of the application, 16 hexadecimal digits."""
        return self._digest("application")[:16]

    def step_of(self, deployment: str) -> str:
        """Return the id of the step of a deployment, 16 hexadecimal digits."""
        return self._digest(f"deployment {deployment}")[:16]

    def traceparent(self, deployment: str, environment: Mapping[str, str] = os.environ) -> str:
        """Return the traceparent of the replicas of a deployment.

        Args:
            deployment: The name that Serve knows it by.
            environment: The OTEL_* variables, whose sampler decides for all replicas alike.
        """
        sampler = TraceSampler(TraceSettings.from_environment(environment))
        flags = "01" if sampler.keeps(int(self.trace, 16), None) else "00"
        return f"00-{self.trace}-{self.step_of(deployment)}-{flags}"

    def claim(self) -> bool:
        """Return whether this process is the first one to call this in its Ray cluster."""
        from ray.experimental.internal_kv import _internal_kv_put

        return _internal_kv_put(self._key, _STARTS, overwrite=False, namespace=_NAMESPACE) is False

    def end(self) -> None:
        """Note that the application has started: what Serve adds to it later is no part of this trace."""
        from ray.experimental.internal_kv import _internal_kv_put

        _internal_kv_put(self._key, _ENDED, namespace=_NAMESPACE)

    def has_ended(self) -> bool:
        """Return whether `end` was called in this Ray cluster; False if that cannot be known."""
        if "ray" not in sys.modules:
            return False
        with suppress(Exception):  # the replica starts without
            from ray.experimental.internal_kv import _internal_kv_get

            return bool(_internal_kv_get(self._key, namespace=_NAMESPACE) == _ENDED)
        return False

    @property
    def _key(self) -> str:
        return f"application {self.trace}"

    def _digest(self, part: str) -> str:
        return hashlib.sha256(f"{self.application}:{self.deployed_ns}:{part}".encode()).hexdigest()
