"""The fields of a configuration: names, types, variables and callbacks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from phasebus.bus import PhasebusError
from phasebus.initializer.cli.doctor.findings import Finding
from phasebus.initializer.cluster.config import ClusterConfig
from phasebus.initializer.node.config import LLMConfig
from phasebus.initializer.pipeline.callbacks import import_callbacks
from phasebus.initializer.pipeline.errors import ConfigError
from phasebus.initializer.pipeline.settings import plain_texts, problems_of, read_fields
from phasebus.telemetry.redaction import learn_data, redact

_CALLBACKS = ("callbacks", "driver_callbacks")


def read(path: Path, assignments: tuple[str, ...]) -> tuple[LLMConfig | ClusterConfig | None, list[Finding]]:
    """Return the configuration without its callbacks, or None if a field is wrong; and the findings about its fields."""
    try:
        content = read_fields(path, assignments)
    except ConfigError as error:
        return None, [Finding("configuration", "file", redact(str(error)), "fix")]
    learn_data(content)
    findings = list(_callbacks(content, ""))
    kind: type[LLMConfig | ClusterConfig] = ClusterConfig if "models" in content else LLMConfig
    try:
        config = kind.model_validate(plain_texts(_without_callbacks(content), kind))
    except ValidationError as error:
        wrong = [Finding("configuration", *_split(problem), "fix") for problem in problems_of(error, kind)]
        return None, [*wrong, *findings]
    count = f"{path}, {len(models(config))} models" if isinstance(config, ClusterConfig) else str(path)
    return config, [Finding("configuration", "fields", count), *findings]


def models(config: LLMConfig | ClusterConfig) -> list[LLMConfig]:
    """Return the models of a configuration."""
    return list(config.models) if isinstance(config, ClusterConfig) else [config]


def _split(problem: str) -> tuple[str, str]:
    name, _, text = problem.partition(": ")
    return name or "fields", redact(text)


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
