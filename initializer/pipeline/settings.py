"""Reading a configuration from YAML, with an error that names each wrong field and the nearest known one."""

from __future__ import annotations

from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from phasebus.initializer.pipeline.callbacks import nearest
from phasebus.initializer.pipeline.errors import ConfigError
from phasebus.telemetry.redaction import MASK, is_secret_name, learn_data, redact, redact_data

M = TypeVar("M", bound=BaseModel)

_MOST_LINES, _MOST_CHARACTERS = 20, 200
"""Maximum number of wrong fields in a message, and maximum number of characters of a value in it."""


class Section(BaseModel):
    """The base class of every configuration: unknown fields are errors, and an instance cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, use_attribute_docstrings=True)


def read_fields(path: Path) -> dict[str, Any]:
    """Return the fields of a YAML file.

    Raises:
        ConfigError: It cannot be read, is not YAML, exceeds the limits of `yaml_file`, or has a field twice.
    """
    from phasebus.initializer.pipeline import yaml_file

    try:
        content = yaml_file.read(path)
    except OSError as error:
        raise ConfigError(f"the configuration {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} has no fields; the smallest configuration is one line: `model: /path/to/a/model`")
    return content


def validated(path: Path, fields: dict[str, Any], model: type[M]) -> M:
    """Return `fields`, read from `path`, as a configuration of the class `model`.

    Raises:
        ConfigError: They are not valid.
    """
    learn_data(fields)
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, model)}") from error


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return a message with one line per wrong field: its path, the reason, and for an unknown name the most similar one."""
    lines = []
    problems = error.errors()
    for problem in problems[:_MOST_LINES]:
        where = ".".join(map(str, problem["loc"]))
        if problem["type"] == "extra_forbidden":
            *section, name = problem["loc"]
            known = _section_of(model, section).model_fields
            suggestion = nearest(str(name), known) or f" (there are {', '.join(known)})"
            lines.append(f"{where}: there is no such field{suggestion}")
        else:
            name = str(problem["loc"][-1]) if problem["loc"] else ""
            lines.append(f"{where}: {problem['msg']} (it is {_shown(name, problem['input'])})")
    if len(problems) > len(lines):
        lines.append(f"and {len(problems) - len(lines)} more")
    return lines[0] if len(problems) == 1 else "\n  ".join([f"{len(problems)} fields are wrong", *lines])


def _shown(name: str, value: object) -> str:
    """Return a value for a message, without secrets."""
    return MASK if is_secret_name(name) and value else shortened(redact(repr(redact_data(value))))


def shortened(text: str) -> str:
    """Return `text`, shortened if it is too long for a message."""
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"


def _section_of(model: type[BaseModel], path: list[int | str]) -> type[BaseModel]:
    for part in path:
        if isinstance(part, int):  # the index in a list
            continue
        annotation = model.model_fields[part].annotation
        if get_origin(annotation) is list:
            (annotation,) = get_args(annotation)
        options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
        model = next(each for each in options if isinstance(each, type) and issubclass(each, BaseModel))
    return model
