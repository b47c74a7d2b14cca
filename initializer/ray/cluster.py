"""Connecting to a Ray cluster: an existing one, or a local one that phasebus starts."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import anyio.to_thread

from phasebus.bus import PhasebusError, StepKind
from phasebus.initializer.ray.address import wait_until_it_answers
from phasebus.initializer.ray.config import RayConfig
from phasebus.initializer.ray.exit_codes import keep_exit_codes
from phasebus.initializer.ray.signals import restore_handlers

RAY = StepKind("ray")


_SUBREAPER = "RAY_kill_child_processes_on_worker_exit_with_raylet_subreaper"

_RAYLET = {
    _SUBREAPER: "true",  # kill a dead worker's children
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_prestart_worker_first_driver": "false",
}
"""Settings of a local Ray.

With the last one, Ray starts workers when they are used. By default it starts one for each CPU and connects once they run: seconds in
which `ray.init` lets no other thread of this process run (no page, no probe), for workers that the engine's actor, which has
a runtime environment, does not use. Source: Ray 2.60, src/ray/raylet/worker_pool.cc (``RegisterDriver``).
"""


def kills_orphans(environment: Mapping[str, str]) -> bool:
    """Return whether the Ray of a worker with this environment kills what outlives the worker that has started it.

    Source: Ray 2.60, src/ray/raylet/main.cc (the raylet is the subreaper of its workers' descendants).
    """
    return environment.get(_SUBREAPER, "").lower() in ("true", "1")


class RayError(PhasebusError):
    """Raised when Ray is not installed, does not start, or does not answer."""


@asynccontextmanager
async def connected(config: RayConfig) -> AsyncIterator[bool]:
    """Connect to Ray: to the cluster this process is connected to, the configured one, or else a new local one.

    Yields whether it is a new local one; only that is shut down at the end.

    Raises:
        RayError: Ray is not installed or does not start, or no cluster answers at the address.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise RayError("Ray is not installed; install it with: pip install 'phasebus[ray]'") from error
    if ray.is_initialized():
        yield False
        return
    address = _address(config)
    if address:
        try:
            await wait_until_it_answers(address, config.connect_seconds)
        except TimeoutError as error:
            source = "ray.address" if config.address else "RAY_ADDRESS"
            raise RayError(
                f"no Ray cluster answers at {address!r} within {config.connect_seconds:g} s ({error}); start it "
                f"(`ray start --head`), or correct {source}"
            ) from None
    async with held_by_a_thread(partial(_connect, config, address), ray.shutdown):
        restore_handlers()
        yield not address


def starts_ray(config: RayConfig) -> bool:
    """Return whether `connected` starts a new local Ray, on this machine."""
    ray = sys.modules.get("ray")
    return not _address(config) and not (ray is not None and ray.is_initialized())


@asynccontextmanager
async def held_by_a_thread(connect: Callable[[], object], shut_down: Callable[[], object]) -> AsyncIterator[None]:
    """Call `connect`, and `shut_down` at the end, in one thread that lives in between.

    The kernel kills Ray's processes when the thread that started them ends, and idle threads of anyio's pool end.
    """
    with ThreadPoolExecutor(1, "phasebus ray") as keeper:
        try:
            await anyio.to_thread.run_sync(lambda: keeper.submit(connect).result())
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(lambda: keeper.submit(shut_down).result())


def _address(config: RayConfig) -> str | None:
    """Return the address of an existing cluster; None for a new local one."""
    address = config.address or os.environ.get("RAY_ADDRESS")
    return None if address == "local" else address


def _connect(config: RayConfig, address: str | None) -> None:
    import ray

    try:
        if address:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            return
        with _raylet_environment(_RAYLET):
            ray.init(
                address="local",
                num_cpus=config.num_cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=256 * 1024 * 1024,
            )
        keep_exit_codes()
    except Exception as error:
        what = f"connecting to Ray at {address!r}" if address else "starting a local Ray"
        hint = "is the cluster up, and of the same Ray and Python version?" if address else local_hint(error)
        raise RayError(f"{what} failed ({hint}): {error}") from error


def local_hint(error: Exception, environment: Mapping[str, str] = os.environ) -> str:
    """Return what to do about an error of a local Ray that does not start.

    Ray 2.60 puts sockets below RAY_TMPDIR, and writes a token to ``~/.ray`` (`ray/_private/authentication`).

    Args:
        error: The error.
        environment: The environment of this process.
    """
    text = str(error)
    if "AF_UNIX path length" in text:
        return "set RAY_TMPDIR to a folder with a shorter path"
    if isinstance(error, OSError) and "/.ray" in text:
        return "set HOME to a folder that can be written, or RAY_AUTH_TOKEN_PATH to a file with a token"
    folder = environment.get("RAY_TMPDIR")
    return f"see {folder}/ray for its logs" if folder else "see /tmp/ray for its logs"


@contextmanager
def _raylet_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set `variables` in the environment within the block, for a raylet that it starts, unless the user has set them."""
    new = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)
