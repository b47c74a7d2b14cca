"""One model of a configuration: where it comes from, its engine's arguments, its resources and its folders."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from phasebus.initializer.cli.doctor.findings import Finding
from phasebus.initializer.cli.doctor.machine import folder_finding
from phasebus.initializer.cli.doctor.ports import address_alone, endpoint, free_text, is_taken, listen_error, reason_of
from phasebus.initializer.downloads.errors import DownloadError
from phasebus.initializer.downloads.inspection import inspect_model
from phasebus.initializer.downloads.sources import source_of
from phasebus.initializer.downloads.sources.local import LocalSource
from phasebus.initializer.engines.optional import ParsingLauncher
from phasebus.initializer.engines.protocol import EngineError, Launcher
from phasebus.initializer.engines.registry import NO_ENGINE, find_launcher
from phasebus.initializer.node.config import LLMConfig
from phasebus.telemetry.history.cpu_quota import cpu_quota
from phasebus.telemetry.redaction import MASK, is_secret_name, redact

_LITTLE_FOR_FILES = 10**9
_SCHEME_WITHOUT_SLASHES = re.compile(r"(hf|s3|gs|az|https?):/?([^/].*)")
_HUB_PAGE = re.compile(r"https?://huggingface\.co/([\w.-]+/[\w.-]+)/?(tree/[^/]+/?)?$")


def examine(config: LLMConfig, *, parse: bool = False) -> Iterator[Finding]:
    """Yield the findings about one model.

    Args:
        config: The model.
        parse: Whether the engine checks its arguments by itself.
    """
    path, finding = _model(config)
    yield finding
    yield from _folders(config)
    yield from _variables(config)
    try:
        launcher = find_launcher(config.engine)
        launcher.check(config.engine_args)
    except EngineError as error:
        yield Finding("engine", config.engine, redact(str(error)), "fix")
        return
    known = f"has the arguments {', '.join(config.engine_args)}" if config.engine_args else "no arguments"
    yield Finding("engine", config.engine, known if parse else f"{known}; --engine checks the values")
    if parse:
        yield _parsed(launcher, config, path)
    yield from _placement(config, launcher)
    yield from _server(config)


def _model(config: LLMConfig) -> tuple[str | None, Finding]:
    """Return the path or name that the engine would load if that is known before the download, and a finding."""
    finding = partial(Finding, "model", redact(config.model))
    if (page := _HUB_PAGE.match(config.model)) is not None:
        return None, finding("a page of the hub, not a model", "fix", f"write hf://{page[1]}")
    scheme = _SCHEME_WITHOUT_SLASHES.match(config.model)
    if scheme is not None and not os.path.exists(config.model):
        return None, finding("neither a path nor an address", "fix", f"write {scheme[1]}://{scheme[2]}")
    try:
        source = source_of(config.model, config.download)
        try:
            if not isinstance(source, LocalSource):
                hub = config.model.removeprefix("hf://")
                return hub if source.kind == "hf" and "@" not in hub else None, finding(f"from {source.display}")
            path, sizes = inspect_model(config.model, source.path, config.local_node_download_model)
        finally:
            source.close()
    except DownloadError as error:
        return None, finding(redact(str(error)), "fix")
    return str(path), finding(f"{len(sizes)} file{'' if len(sizes) == 1 else 's'}, {sum(sizes):,} bytes")


def _folders(config: LLMConfig) -> Iterator[Finding]:
    """Yield the folders that the configuration names for downloads."""
    named: dict[str, Path | None] = {"download_destination": config.download_destination}
    named |= {f"extra_files.{number}": each.destination for number, each in enumerate(config.extra_files)}
    for name, folder in named.items():
        if folder is not None:
            finding = folder_finding(name, folder.expanduser().absolute(), name, _LITTLE_FOR_FILES)
            yield replace(finding, topic="downloads")
    for number, each in enumerate(config.extra_files):
        try:
            source_of(each.source, config.download).close()
        except DownloadError as error:
            yield Finding("model", f"extra_files.{number}", redact(str(error)), "fix")


def _variables(config: LLMConfig) -> Iterator[Finding]:
    """Yield the variables of `runtime_env` that are no texts: Ray rejects them."""
    variables = config.runtime_env.get("env_vars")
    for name, value in variables.items() if isinstance(variables, dict) else ():
        if not isinstance(value, str):
            shown = MASK if is_secret_name(str(name)) else redact(repr(value))
            advice = "Ray accepts texts only: write the value in quotes"
            yield Finding("engine", f"runtime_env.env_vars.{name}", f"it is {shown}", "fix", advice)


def _parsed(launcher: Launcher, config: LLMConfig, model: str | None) -> Finding:
    if not isinstance(launcher, ParsingLauncher):
        return Finding("engine", "values", f"the engine {config.engine!r} cannot check its arguments by itself", "note")
    if model is None:
        return Finding(
            "engine", "values", "not checked: they depend on the model, which is not on this machine", "note"
        )
    try:
        server = None if config.serve is None else config.serve.args
        launcher.parse(model, config.engine_args, config.engine_env, server)
    except EngineError as error:
        return Finding("engine", "values", redact(str(error)), "fix")
    return Finding("engine", "values", "the engine accepts them")


def _placement(config: LLMConfig, launcher: Launcher) -> Iterator[Finding]:
    """Yield whether a new local Ray cluster, if one would be started, has the resources that are reserved."""
    workers = launcher.workers(config.engine_args)
    if not workers or config.ray.address or os.environ.get("RAY_ADDRESS"):
        return
    there = {"CPU": config.ray.num_cpus or _cpus_of_ray(), "GPU": len(list(Path("/dev").glob("nvidia[0-9]*")))}
    bundles = config.placement.bundles
    if bundles is None:
        bundles = [{"CPU": float(workers), **({"GPU": float(workers)} if there["GPU"] else {})}]
    if max(config.nodes, config.replicas or 1) > 1:
        yield Finding(
            "placement",
            "nodes",
            f"{config.nodes}, and a new local cluster has one",
            "note",
            "set ray.address or RAY_ADDRESS",
        )
        return
    yield from _compared(bundles, there)
    gpus = sum(bundle.get("GPU", 0) for bundle in bundles)
    if config.placement.bundles and there["GPU"] and 0 < gpus < workers:
        yield Finding("placement", "GPUs", f"{gpus:g} for {workers} workers of the engine", "note")


def _cpus_of_ray() -> int:
    """Return how many CPUs a local Ray cluster has: those of the machine, or the whole ones of a container's quota."""
    cpus, quota = os.cpu_count() or 1, cpu_quota()
    return cpus if quota is None else max(1, min(cpus, int(quota)))


def _compared(bundles: list[dict[str, float]], there: Mapping[str, float]) -> Iterator[Finding]:
    for name in sorted({name for bundle in bundles for name in bundle}):
        wanted = sum(bundle.get(name, 0) for bundle in bundles)
        available = there.get(name, 0)
        shown = f"{wanted:g} of {available:g}"
        if wanted > available:
            advice = "the start would wait for them in vain; request less (placement.bundles, engine_args), or name a cluster (ray.address)"
            yield Finding("placement", name, f"{shown} of a new local cluster", "fix", advice)
        else:
            yield Finding("placement", name, shown)


def _server(config: LLMConfig) -> Iterator[Finding]:
    """Yield whether the port of the engine's own server is free, if this machine has the server."""
    serve = config.serve
    if serve is None or config.engine == NO_ENGINE or config.nodes > 1:
        return
    where = endpoint(serve.host, serve.port)
    if serve.exact and serve.port == config.service.port:
        yield Finding("server", "port", f"{serve.port} is also service.port", "fix", "name another serve.port, or 0")
    elif (error := listen_error(serve.host, serve.port)) is None:
        yield Finding("server", "port", free_text(serve.host, serve.port))
    elif not (is_taken(error) or isinstance(error, PermissionError)):
        alone = address_alone(serve.host)
        advice = "serve.host is an address of this machine, or 0.0.0.0 or :: for all of them"
        advice = advice if alone is None else f"the port is a field of its own: serve.host: {alone}, and serve.port"
        yield Finding("server", "host", f"cannot listen on {where}: {reason_of(error)}", "fix", advice)
    elif serve.exact:
        yield Finding(
            "server", "port", f"cannot listen on {where}: {reason_of(error)}", "fix", "name another serve.port, or 0"
        )
    else:
        yield Finding(
            "server", "port", f"cannot listen on {where}: {reason_of(error)}", "note", "the next free port is used"
        )
