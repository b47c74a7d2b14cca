"""The JSON schema of configuration files, for editors: what `settings` accepts in YAML, with each field's meaning and default.

It describes the YAML form: callbacks are names, and a field that is no text may also be a reference to a variable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, cast, get_args

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from pydantic_core import PydanticUndefined, to_jsonable_python

from phasebus.initializer.pipeline.callbacks import Callbacks
from phasebus.initializer.pipeline.settings import models_in

DIALECT: Final = "http://json-schema.org/draft-07/schema#"
"""The dialect: the newest one that the common editors support whole."""

_REFERENCE: Final = "Reference"
_TYPES_WITH_REFERENCES: Final = ("integer", "number", "boolean")


def json_schema(single: type[BaseModel], several: type[BaseModel], field: str, *, title: str) -> dict[str, Any]:
    """Return the schema of a file that has the fields of `several` if it has `field`, and else those of `single`.

    Args:
        single: The model of a file without `field`.
        several: The model of a file with `field`.
        field: The name of the field.
        title: The title of the schema.
    """
    _, whole = models_json_schema([(single, "validation"), (several, "validation")])
    definitions: dict[str, Any] = whole["$defs"]
    for model in {each.__name__: each for root in (single, several) for each in models_of(root)}.values():
        properties = properties_of(definitions[model.__name__])
        for name, schema in list(properties.items()):
            _describe(model, name, schema)
            if not is_in_files(model, name):
                del properties[name]
    definitions = {name: _in_yaml(schema) for name, schema in definitions.items()}
    definitions[_REFERENCE] = {
        "type": "string",
        "pattern": r"\$\{",
        "description": "A reference to an environment variable: ${NAME} or ${NAME:-default}.",
    }
    return {
        "$schema": DIALECT,
        "title": title,
        "type": "object",
        "if": {"required": [field]},
        "then": {"$ref": f"#/$defs/{several.__name__}"},
        "else": {"$ref": f"#/$defs/{single.__name__}"},
        "$defs": dict(sorted(definitions.items())),
    }


def models_of(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Yield `model` and the models of its sections, at any depth; one may appear several times."""
    yield model
    for field in model.model_fields.values():
        for section in models_in(field.annotation):
            yield from models_of(section)


def is_in_files(model: type[BaseModel], name: str) -> bool:
    """Return whether a YAML file can have the field: one whose values are Python objects can only be set in code."""
    field = model.model_fields[name]
    return field.annotation != list[Any] or is_callbacks(model, name)


def is_callbacks(model: type[BaseModel], name: str) -> bool:
    """Return whether a field has callbacks, which a file names."""
    return set(get_args(Callbacks)[1:]) <= set(model.model_fields[name].metadata)


def default_of(model: type[BaseModel], name: str) -> Any:
    """Return a field's default as data for JSON; `PydanticUndefined` if it has none or is a section with its own defaults."""
    field = model.model_fields[name]
    make = cast("Callable[[], Any] | None", field.default_factory)
    value = field.default if make is None else make()
    if value is PydanticUndefined or isinstance(value, BaseModel):
        return PydanticUndefined
    return to_jsonable_python(value)


def properties_of(definition: Mapping[str, Any]) -> dict[str, Any]:
    """Return the properties of a model, which may have other forms beside a mapping."""
    forms = [definition, *definition.get("anyOf", ())]
    found: dict[str, Any] = next(form["properties"] for form in forms if "properties" in form)
    return found


def _describe(model: type[BaseModel], name: str, schema: dict[str, Any]) -> None:
    schema.pop("title", None)
    if (default := default_of(model, name)) is not PydanticUndefined:
        schema["default"] = default
    if "description" in schema:
        schema["description"] = " ".join(schema["description"].split())
    if is_callbacks(model, name):
        schema["items"] = {"type": "string", "pattern": r"^[^:]+:[^:]+$|\$\{"}


def _in_yaml(schema: Any) -> Any:
    """Return `schema` with references accepted wherever a value is no free text."""
    if isinstance(schema, list):
        return [_in_yaml(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    inner = {name: _in_yaml(each) if name not in ("default", "enum") else each for name, each in schema.items()}
    if (
        inner.get("type") in _TYPES_WITH_REFERENCES
        or "enum" in inner
        or (inner.get("type") == "string" and "pattern" in inner)
    ):
        kept = {name: inner.pop(name) for name in ("default", "description") if name in inner}
        return {**kept, "anyOf": [inner, {"$ref": f"#/$defs/{_REFERENCE}"}]}
    return inner
