"""`phasebus check`: everything about a configuration that can be found without starting it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from phasebus.initializer.cli.doctor.findings import Finding, print_and_exit


@click.command(short_help="Check a configuration without starting it.")
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "--set",
    "assignments",
    metavar="NAME=VALUE",
    multiple=True,
    help="Set a field of the configuration, as for up. May be repeated.",
)
@click.option(
    "--engine",
    "parse",
    is_flag=True,
    help="Have the engine check its arguments against the model and each other, too; it imports vLLM, which takes a while.",
)
@click.option(
    "--json", "as_data", is_flag=True, help="Print one JSON object with the findings and the number of problems."
)
def check(config: Path, assignments: tuple[str, ...], *, parse: bool, as_data: bool) -> None:
    """Check the YAML file CONFIG: fields, callbacks, model, engine arguments, resources, port, folders and credentials.

    It imports the callbacks, connects to no server but the Ray cluster, and starts nothing. Lines marked ! are problems that
    would fail the start, lines marked - are possible surprises. The exit code is 1 if there is a problem. CONFIG may be -
    for standard input.
    """
    print_and_exit(list(examine(config, assignments, parse=parse)), as_data=as_data)


def examine(path: Path, assignments: tuple[str, ...] = (), *, parse: bool = False) -> Iterator[Finding]:
    """Yield the findings about a configuration.

    Args:
        path: The file; ``-`` for standard input.
        assignments: Fields that replace those of the file, as for ``phasebus up --set``.
        parse: Whether the engine checks its arguments by itself.
    """
    from phasebus.initializer.cli.check import fields, models, surroundings
    from phasebus.initializer.pipeline import yaml_file  # noqa: F401  # a yaml.py beside the file is another module
    from phasebus.initializer.pipeline.settings import folder_of

    with _imports_from(folder_of(path)):
        config, found = fields.read(path, assignments)
        yield from found
    if config is None:
        return
    for model in fields.models(config):
        yield from models.examine(model, parse=parse)
    yield from surroundings.examine(config)


@contextmanager
def _imports_from(folder: Path) -> Iterator[None]:
    """Import modules from `folder` first during the block, as ``phasebus up`` does."""
    before = list(sys.path)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = before
