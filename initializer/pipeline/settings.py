"""Reading a configuration from YAML, with an error that names each wrong field and the nearest known one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from phasebus.initializer.pipeline.callbacks import nearest
from phasebus.initializer.pipeline.errors import ConfigError
from phasebus.initializer.pipeline.references import Expanded, VariableError
from phasebus.telemetry.redaction import MASK, is_secret_name, learn_data, redact, redact_data

M = TypeVar("M", bound=BaseModel)

_MOST_LINES, _MOST_CHARACTERS = 20, 200
"""Maximum number of wrong fields in a message, and maximum number of characters of a value in it."""


_FORMS: Final = {
    "dict_type": "write each as `name: value`, without a dash",
    "list_type": "write each in a line of its own, after a dash",
}
"""How the values of a field are written that has several."""

STANDARD_INPUT: Final = Path("-")
"""The path of a configuration that is read from standard input."""


class Section(BaseModel):
    """The base class of every configuration: unknown fields are errors, and an instance cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, use_attribute_docstrings=True)


def _typed(value: Any) -> Any:
    """Return `value` with every text that came from a variable read as a YAML value, such as a number."""
    if isinstance(value, Expanded):
        from phasebus.initializer.pipeline import yaml_file

        return yaml_file.scalar(value) if value else ""
    if isinstance(value, dict):
        return {key: _typed(each) for key, each in value.items()}
    return [_typed(each) for each in value] if isinstance(value, list) else value


_FREE = BeforeValidator(_typed)

FreeFields = Annotated[dict[str, Any], _FREE]
"""A field of a configuration with names and values that another program defines, such as the engine's arguments."""


def read_fields(
    path: Path, assignments: Iterable[str] = (), variables: Mapping[str, str] = os.environ
) -> dict[str, Any]:
    """Return the fields of a YAML file.

    Args:
        path: The file; `STANDARD_INPUT` for standard input.
        assignments: Fields that replace those of the file: ``name.of.field=VALUE``, with a YAML value.
        variables: The environment variables that the file may refer to.

    Raises:
        ConfigError: It cannot be read, is not YAML, exceeds the limits of `yaml_file`, has a field twice, or refers to a
            variable that is not set; or an assignment is malformed.
    """
    from phasebus.initializer.pipeline import yaml_file

    name = title_of(path)
    try:
        content = yaml_file.read(0 if path == STANDARD_INPUT else path, variables)
    except OSError as error:
        raise ConfigError(f"the configuration {name} cannot be read: {error.strerror}") from error
    except VariableError as error:
        raise ConfigError(f"{name}, {error}") from error
    except ValueError as error:
        raise ConfigError(f"{name} cannot be read as YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{name} has no fields; the smallest configuration is one line: `model: /path/to/a/model`")
    for assignment in assignments:
        _assign(content, assignment)
    return content


def title_of(path: Path) -> str:
    """Return the name of a configuration for messages."""
    return "standard input" if path == STANDARD_INPUT else str(path)


def folder_of(path: Path) -> Path:
    """Return the folder from which the callbacks of a configuration are imported; the working folder if it is no file there.

    ``/dev/stdin`` and ``/dev/fd/63``, as shells write ``<(…)``, are in no folder of the user.
    """
    folder = path.absolute().parent
    return Path.cwd() if folder.is_relative_to("/dev") or folder.is_relative_to("/proc") else folder


def _assign(fields: dict[str, Any], assignment: str) -> None:
    """Set the field that `assignment` names; sections that are missing are added."""
    from phasebus.initializer.pipeline import yaml_file

    name, equals, text = assignment.partition("=")
    parts = name.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(
            f"--set {redact(assignment)} is not of the form NAME=VALUE, such as engine_args.max_model_len=4096"
        )
    if len(parts) > yaml_file.DEEPEST:
        raise ConfigError(f"--set {redact(name)}: it is nested deeper than {yaml_file.DEEPEST} levels")
    try:
        value = yaml_file.parse(text.encode())
    except ValueError as error:
        raise ConfigError(f"--set {name}: the value cannot be read as YAML: {error}") from error
    section: Any = fields
    *sections, last = parts
    for number, part in enumerate(sections, 1):
        if isinstance(section, dict) and section.get(part) is None:
            section[part] = {}
        section = _inner(section, part, name, ".".join(parts[:number]))
    if isinstance(section, list):
        _inner(section, last, name, name)
        section[int(last)] = value
    elif isinstance(section, dict):
        section[last] = value
    else:
        raise ConfigError(
            f"--set {name}: {'.'.join(sections)} has no fields, its value is {_shown(sections[-1], section)}"
        )


def _inner(section: Any, part: str, name: str, path: str) -> Any:
    """Return the value of the key or index `part` of `section`."""
    if isinstance(section, list):
        if not part.isdecimal() or int(part) >= len(section):
            raise ConfigError(f"--set {name}: {path} does not exist; the list has the indices 0 to {len(section) - 1}")
        return section[int(part)]
    if not isinstance(section, dict):
        raise ConfigError(f"--set {name}: there are no fields in {path.rpartition('.')[0]}")
    return section[part]


def validated(path: Path, fields: dict[str, Any], model: type[M]) -> M:
    """Return `fields`, read from `path`, as a configuration of the class `model`.

    Raises:
        ConfigError: They are not valid.
    """
    learn_data(fields)
    try:
        return model.model_validate(plain_texts(fields, model))
    except ValidationError as error:
        raise ConfigError(f"{title_of(path)}: {explain(error, model)}") from error


def plain_texts(value: Any, model: type[BaseModel] | None) -> Any:
    """Return `value` with every text that came from a variable as a plain `str`, except in fields that are `FreeFields`.

    Pydantic 2.9 rejects a subclass of `str` for a literal.

    Args:
        value: The value of a field, or the fields themselves.
        model: The model that `value` is for, or has in it; None for values without a model.
    """
    if isinstance(value, Expanded):
        return str(value)
    if isinstance(value, list):
        return [plain_texts(each, model) for each in value]
    if not isinstance(value, dict):
        return value
    known = {} if model is None else model.model_fields
    return {
        name: each
        if name in known and _FREE in known[name].metadata
        else plain_texts(each, next(models_in(known[name].annotation), None) if name in known else None)
        for name, each in value.items()
    }


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models in an annotation, such as those of a list or a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return a message with one line per wrong field: its path, the reason, and for an unknown name the most similar one."""
    lines = problems_of(error, model)
    return lines[0] if len(lines) == 1 else "\n  ".join([f"{error.error_count()} fields are wrong", *lines])


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Return the lines of `explain`, one per wrong field; a last one counts those that are left out."""
    lines = []
    problems = error.errors()
    for problem in problems[:_MOST_LINES]:
        where = ".".join(map(str, problem["loc"]))
        if problem["type"] == "extra_forbidden":
            *section, name = problem["loc"]
            known = _section_of(model, section).model_fields
            suggestion = _inner_fields(str(name), known) or nearest(str(name), known)
            suggestion = suggestion or f" (there are {', '.join(known)})"
            lines.append(f"{where}: there is no such field{suggestion}")
        else:
            name = str(problem["loc"][-1]) if problem["loc"] else ""
            message = problem["msg"].removeprefix("Value error, ")
            if problem["type"] == "model_type":
                message = _fields_of(model, [*problem["loc"]])
            if problem["type"] == "string_type" and isinstance(problem["input"], bool | int | float):
                message = f"{message}; write it in quotes"  # such as `on`, `no` or 1.10
            elif (form := _FORMS.get(problem["type"])) is not None:
                message = f"{message}; {form}"
            value = "" if problem["type"] == "missing" else f" (it is {_shown(name, problem['input'])})"
            lines.append(f"{where}: {message}{value}")
    if len(problems) > len(lines):
        lines.append(f"and {len(problems) - len(lines)} more")
    return lines


def _fields_of(model: type[BaseModel], path: list[int | str]) -> str:
    """Return a message that names the fields of the section at `path`."""
    message = f"it has fields of its own: {', '.join(_section_of(model, path).model_fields)}"
    *outer, name = path
    field = _section_of(model, outer).model_fields.get(str(name))
    return f"{message}; or null" if field is not None and type(None) in get_args(field.annotation) else message


def _inner_fields(name: str, known: Mapping[str, FieldInfo]) -> str:
    """Return a suffix for a message that names the sections which have a field `name`; "" if there is none."""
    paths = []
    for section, field in known.items():
        if any(name in inner.model_fields for inner in models_in(field.annotation)):
            is_list = get_origin(field.annotation) in (list, tuple)
            paths.append(f"{section}.N.{name}" if is_list else f"{section}.{name}")
    return f"; did you mean {' or '.join(paths)}?" if paths else ""


def _shown(name: str, value: object) -> str:
    """Return a value for a message, without secrets."""
    return MASK if is_secret_name(name) and value else shortened(redact(repr(redact_data(value))))


def shortened(text: str) -> str:
    """Return `text`, shortened if it is too long for a message."""
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"


def _section_of(model: type[BaseModel], path: list[int | str]) -> type[BaseModel]:
    for part in path:
        if isinstance(part, str):  # an int is the index in a list
            model = next(models_in(model.model_fields[part].annotation))
    return model
