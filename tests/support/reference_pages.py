"""The generated parts of docs/reference: ``python -m tests.support.reference_pages`` writes them.

docs/reference/metrics.md and docs/reference/events.md have generators of their own, which it runs, too.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import click
from click.testing import CliRunner
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from phasebus.initializer import LLMConfig
from phasebus.initializer.cli import main
from phasebus.initializer.cli.doctor.variables import MEANINGS
from phasebus.initializer.cluster import ClusterConfig
from phasebus.initializer.pipeline.schema import default_of, is_callbacks, is_in_files, models_of, properties_of
from phasebus.telemetry.names import KINDS
from tests.support import metrics_page
from tests.support.docs import ROOT

FOLDER: Final = ROOT / "docs" / "reference"
MARK: Final = "<!-- Generated from here on: python -m tests.support.reference_pages -->\n"
WIDTH: Final = 100

_PARAMETERS: Final = "\n\nArgs:"


def pages() -> dict[str, Callable[[], str]]:
    """Return the functions that generate the part below the mark, by the name of the page."""
    return {
        "commands.md": _commands,
        "configuration.md": _configuration,
        "spans.md": _spans,
        "variables.md": _variables,
    }


def split(name: str) -> tuple[str, str]:
    """Return the written and the generated part of a page."""
    written, mark, generated = (FOLDER / name).read_text().partition(MARK)
    return written + mark, generated.lstrip("\n")


def write() -> None:
    """Write the generated part of every page, also of those with generators of their own."""
    for name, generate in pages().items():
        written, _ = split(name)
        (FOLDER / name).write_text(f"{written}\n{generate()}")
    metrics_page.write()
    (FOLDER / "events.md").write_text(CliRunner().invoke(main, ["events", "--markdown"]).output)


def _commands() -> str:
    return "\n".join(f"## `{path}`\n\n```text\n{text}\n```\n" for path, text in _helps())


def _helps() -> Iterator[tuple[str, str]]:
    """Yield the help of every command by its words, such as ``phasebus report diff``, those of a group after the group."""

    def below(words: str, command: click.Command, parent: click.Context | None) -> Iterator[tuple[str, str]]:
        context = click.Context(
            command,
            info_name=words.rpartition(" ")[2],
            parent=parent,
            max_content_width=WIDTH,
            terminal_width=WIDTH,
            **command.context_settings,
        )
        vars(command)["_help_option"] = None  # click keeps it of the first context, as of a command invoked by itself
        yield words, command.get_help(context).rstrip()
        if not isinstance(command, click.Group):
            return
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield from below(f"{words} {name}", inner, context)

    yield from below("phasebus", main, None)


def _configuration() -> str:
    models = list({each.__name__: each for root in (LLMConfig, ClusterConfig) for each in models_of(root)}.values())
    sections = _sections()
    return "\n".join(_table(model, sections) for model in models)


def _sections() -> dict[str, str]:
    return {
        "LLMConfig": "One model",
        "ServeConfig": "`serve`",
        "ClusterConfig": "Several models",
        "ExtraFile": "`extra_files`",
        "DownloadSettings": "`download`",
        "PlacementConfig": "`placement`",
        "RayConfig": "`ray`",
        "ServiceConfig": "`service`",
    }


def _table(model: type[BaseModel], sections: dict[str, str]) -> str:
    title = sections.get(model.__name__, f"`{model.__name__}`")
    about = (inspect.getdoc(model) or "").partition(_PARAMETERS)[0]
    rows = "".join(_row(model, name) for name in model.model_fields if is_in_files(model, name))
    return f"## {title}\n\n{about}\n\n| field | type | default | meaning |\n| --- | --- | --- | --- |\n{rows}"


def _row(model: type[BaseModel], name: str) -> str:
    field = model.model_fields[name]
    default = default_of(model, name)
    shown = "required" if field.is_required() else "" if default is PydanticUndefined else f"`{json.dumps(default)}`"
    kind = (
        "list of `module:name`" if is_callbacks(model, name) else _type(properties_of(model.model_json_schema())[name])
    )
    meaning = " ".join((field.description or "").split()).replace("|", "\\|")
    return f"| `{name}` | {kind} | {shown} | {_without_html(meaning)} |\n"


def _without_html(text: str) -> str:
    return text.replace("<", "&lt;")


def _type(schema: dict[str, Any]) -> str:
    """Return a JSON schema's type in words."""
    if "$ref" in schema:
        return "section"
    if "enum" in schema:
        return " or ".join(f"`{each}`" for each in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if schema.get("type") == "array":
        inner = _type(schema["items"])
        return f"list of {inner}s" if inner.isalpha() else f"list of ({inner})"
    words = {"object": "mapping", "string": "text", "boolean": "Boolean"}
    name = str(schema.get("type", "any"))
    return words.get(name, name)


def _spans() -> str:
    rows = "".join(
        f"| `{names.span.format(name='NAME', words='NAME', kind=kind)}` | `{kind}` | `{names.duration.name}` |\n"
        for kind, names in KINDS.items()
    )
    return f"## Names\n\n| span | kind of the step | metric of its duration |\n| --- | --- | --- |\n{rows}"


def _variables() -> str:
    titles = {
        "PHASEBUS_": "phasebus",
        "OTEL_": "OpenTelemetry",
        "HF_": "The hub",
        "VLLM_": "vLLM",
        "": "Others",
    }
    tables = []
    left = dict(MEANINGS)
    for prefix, title in titles.items():
        names = sorted(name for name in left if name.startswith(prefix))
        rows = "".join(f"| `{name}` | {left.pop(name)} |\n" for name in names)
        tables.append(f"## {title}\n\n| variable | meaning |\n| --- | --- |\n{rows}")
    return "\n".join(tables)


def variables_in_code() -> set[str]:
    """Return the variables of phasebus that its code names."""
    found: set[str] = set()
    for room in ("bus", "telemetry", "observers", "initializer", "src/phasebus"):
        for path in (ROOT / room).rglob("*.py"):
            found |= set(re.findall(r"[\"'](PHASEBUS_[A-Z_]+[A-Z])[\"']", path.read_text()))
    return found


if __name__ == "__main__":
    write()
