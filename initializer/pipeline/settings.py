"""Reading a configuration from YAML, with an error that names each wrong field and the nearest right one."""

from __future__ import annotations

from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from phasebus.initializer.pipeline.callbacks import nearest
from phasebus.initializer.pipeline.errors import ConfigError
from phasebus.telemetry.redaction import MASK, is_secret_name, learn_data, redact, redact_data

M = TypeVar("M", bound=BaseModel)


class Section(BaseModel):
    """The base class of every configuration: unknown fields are errors, and an instance cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, use_attribute_docstrings=True)


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
    learn_data(fields)
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
            name = str(problem["loc"][-1]) if problem["loc"] else ""
            lines.append(f"{where}: {problem['msg']} (it is {_shown(name, problem['input'])})")
    return lines[0] if len(lines) == 1 else "\n  ".join([f"{len(lines)} fields are wrong", *lines])


def _shown(name: str, value: object) -> str:
    """Return a value for a message, without secrets."""
    return MASK if is_secret_name(name) and value else redact(repr(redact_data(value)))


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
