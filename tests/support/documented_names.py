"""Names that pages, manifests and examples quote: metrics, variables, and options of commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Final

import click
import yaml

from phasebus.initializer.cli import main
from phasebus.telemetry import names
from tests.support import links, reference_pages
from tests.support.docs import ROOT

FILES: Final = [
    *(page for page in links.PAGES if page.name != "CHANGELOG.md"),  # it has the names of earlier versions
    *(
        path
        for folder in ("deploy", "examples")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in (".yaml", ".yml")
    ),
]
"""The files whose names have to exist."""

_METRIC: Final = re.compile(r"\bphasebus_[a-z0-9_]+[a-z0-9]\b(?!_?\w*[*…])")
_VARIABLE: Final = re.compile(r"\bPHASEBUS_[A-Z_]+[A-Z]\b")
_COMMAND: Final = re.compile(r"(?:^|`)(?:\w+=\S+ )*(phasebus [a-z][^\n`#]*)", re.MULTILINE)
_PREFIXES: Final = {"phasebus_cluster"}
"""Beginnings of names, which pages quote with an ellipsis or a pattern."""
_SUFFIXES: Final = {"histogram": ("", "_bucket", "_sum", "_count"), "summary": ("", "_sum", "_count")}


@cache
def known_metrics() -> frozenset[str]:
    """Return every series that a node or a hub can export, every family, and what the rules record."""
    families = [family for row in names.all_families() for family in (row, row.of_cluster())]
    known = {f"{family.name}{suffix}" for family in families for suffix in _SUFFIXES.get(family.type, ("",))}
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yml").read_text())
    return frozenset(known) | {
        rule["record"] for group in rules["groups"] for rule in group["rules"] if "record" in rule
    }


def unknown_metrics(text: str) -> set[str]:
    """Return the metrics in `text` that nothing exports."""
    return set(_METRIC.findall(text)) - known_metrics() - _PREFIXES


@cache
def _known_variables() -> frozenset[str]:
    return frozenset(reference_pages.variables_in_code())


def unknown_variables(text: str) -> set[str]:
    """Return the variables of phasebus in `text` that its code does not read."""
    return set(_VARIABLE.findall(text)) - _known_variables()


def unknown_options(text: str) -> Iterator[str]:
    """Yield the options in `text`, each with its command, that the command does not have."""
    for line in _COMMAND.findall(text):
        for command in re.split(r"&&|\||;|, ", line):
            words = command.partition(" -- ")[0].split()
            yield from _unknown_options(words[1:] if words[:1] == ["phasebus"] else [])


def _unknown_options(words: list[str]) -> Iterator[str]:
    command: click.Command = main
    context = click.Context(main)
    for number, word in enumerate(words):
        inner = command.get_command(context, word) if isinstance(command, click.Group) else None
        if inner is None:
            break
        command, words = inner, words[1:] if number == 0 else words
    known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)} | {
        "--help",
        "--version",
    }
    for word in words:
        option = word.partition("=")[0].strip("[].,:)")
        if option.startswith("--") and option != "--" and option not in known:
            yield f"{command.name} {option}"
