"""The fields of a configuration: names, types, variables and callbacks."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from phasebus.bus import PhasebusError
from phasebus.initializer.cli.doctor.findings import Finding, Level
from phasebus.initializer.cluster.config import ClusterConfig
from phasebus.initializer.engines.protocol import EngineError
from phasebus.initializer.engines.registry import find_launcher
from phasebus.initializer.node.config import LLMConfig
from phasebus.initializer.pipeline.callbacks import import_callbacks
from phasebus.initializer.pipeline.errors import ConfigError
from phasebus.initializer.pipeline.references import Expanded
from phasebus.initializer.pipeline.settings import STANDARD_INPUT, plain_texts, problems_of, read_fields, title_of
from phasebus.telemetry.redaction import is_secret_name, learn_data, redact
from phasebus.telemetry.service import NO_TOKEN

_CALLBACKS = ("callbacks", "driver_callbacks")
_OF_ALL_MODELS = {"service": "service", "ray": "ray", "driver_callbacks": "callbacks"}
"""The fields of a model that belong to the whole file if it has several, with their names there."""

_NO_ARGUMENT = "no_engine_has_this_argument"
_READABLE_BY_OTHERS = stat.S_IRGRP | stat.S_IROTH


def read(path: Path, assignments: tuple[str, ...]) -> tuple[LLMConfig | ClusterConfig | None, list[Finding]]:
    """Return the configuration without its callbacks, or None if a field is wrong; and the findings about its fields."""
    try:
        content = read_fields(path, assignments)
    except ConfigError as error:
        return None, [Finding("configuration", "file", redact(str(error)), "fix")]
    if (other := _other_program(content)) is not None:
        return None, [Finding("configuration", "file", *other)]
    learn_data(content)
    findings = [*_literal_secrets(path, content), *_callbacks(content, "")]
    kind: type[LLMConfig | ClusterConfig] = ClusterConfig if "models" in content else LLMConfig
    try:
        config = kind.model_validate(plain_texts(_without_callbacks(content), kind))
    except ValidationError as error:
        wrong = [_finding(problem, content) for problem in problems_of(error, kind)]
        return None, [*wrong, *findings]
    name = title_of(path)
    count = f"{name}, {len(models(config))} models" if isinstance(config, ClusterConfig) else name
    return config, [Finding("configuration", "fields", count), *_without_effect(content), *findings]


def _without_effect(content: dict[str, Any]) -> Iterator[Finding]:
    """Yield the fields of single models that a file with several models has once, for all of them."""
    for number, model in enumerate(content.get("models", ())):
        for name, of_all in _OF_ALL_MODELS.items():
            if name in model:
                advice = f"write it once, as `{of_all}` beside `models`"
                yield Finding("configuration", f"models.{number}.{name}", "it has no effect here", "note", advice)


def _literal_secrets(path: Path, content: Any) -> Iterator[Finding]:
    """Yield the fields with a secret that stands in the file itself, if other users may read the file."""
    if path == STANDARD_INPUT or not path.stat().st_mode & _READABLE_BY_OTHERS:
        return
    pending = [("", content)]
    while pending:
        where, value = pending.pop(0)
        if isinstance(value, dict):
            pending += [(f"{where}.{name}" if where else str(name), each) for name, each in value.items()]
        elif isinstance(value, list):
            pending += [(f"{where}.{number}", each) for number, each in enumerate(value)]
        elif isinstance(value, str) and _is_literal_secret(where, value):
            advice = f"refer to a variable instead: ${{NAME}}; or chmod 600 {path}"
            yield Finding("configuration", where, "a secret in a file that other users may read", "note", advice)


def _is_literal_secret(where: str, value: str) -> bool:
    return not isinstance(value, Expanded) and value != NO_TOKEN and is_secret_name(where.rpartition(".")[2])


def models(config: LLMConfig | ClusterConfig) -> list[LLMConfig]:
    """Return the models of a configuration."""
    return list(config.models) if isinstance(config, ClusterConfig) else [config]


def _other_program(content: dict[str, Any]) -> tuple[str, Level, str] | None:
    """Return the value, the level and the advice of a finding if `content` is a file for another program, otherwise None."""
    if {"apiVersion", "kind"} <= content.keys():
        what = f"a manifest of Kubernetes (kind: {content['kind']}), not a configuration of phasebus"
        return redact(what), "fix", "give the file that its ConfigMap has, such as node.yaml"
    if foreign := sorted({"applications", "llm_configs", "model_loading_config"} & content.keys()):
        what = f"a configuration of Ray Serve ({foreign[0]}), not one of phasebus"
        return (
            what,
            "fix",
            "deploy it with `serve deploy`; its callback_config names phasebus (docs/guides/ray-serve-llm.md)",
        )
    return None


def _finding(problem: str, content: dict[str, Any]) -> Finding:
    """Return the finding for a line of `problems_of`; for an engine argument outside of engine_args with advice."""
    name, _, text = problem.partition(": ")
    advice = ""
    if text.startswith("there is no such field (") and _is_engine_argument(name, content):
        text, advice = "there is no such field", f"it is an argument of the engine: write it as engine_args.{name}"
    return Finding("configuration", name or "fields", redact(text), "fix", advice)


def _is_engine_argument(name: str, content: dict[str, Any]) -> bool:
    try:
        launcher = find_launcher(str(content.get("engine", LLMConfig.model_fields["engine"].default)))
        launcher.check({name: content.get(name)})
    except EngineError:
        return False
    try:
        launcher.check({_NO_ARGUMENT: None})
    except EngineError:
        return True
    return False  # the engine accepts any name


def _callbacks(content: Any, prefix: str) -> Iterator[Finding]:
    """Import every callback that `content` names, each by itself: one that fails does not hide the next."""
    if not isinstance(content, dict):
        return
    for field in _CALLBACKS:
        for name in _names(content, field):
            try:
                import_callbacks([str(name)])
            except PhasebusError as error:
                yield Finding("callbacks", f"{prefix}{field}", redact(str(error)), "fix")
            else:
                yield Finding("callbacks", f"{prefix}{field}", str(name))
    inner = content.get("models")
    for number, each in enumerate(inner if isinstance(inner, list) else ()):
        yield from _callbacks(each, f"models.{number}.")


def _names(content: dict[str, Any], field: str) -> list[str]:
    """Return the names in a field with callbacks; none if it is malformed, which is an error of its own."""
    value = content.get(field)
    return value if isinstance(value, list) and all(isinstance(each, str) for each in value) else []


def _without_callbacks(content: dict[str, Any]) -> dict[str, Any]:
    kept = {name: each for name, each in content.items() if name not in _CALLBACKS or not _names(content, name)}
    if isinstance(inner := kept.get("models"), list):
        kept["models"] = [_without_callbacks(each) if isinstance(each, dict) else each for each in inner]
    return kept
