"""`phasebus schema`: the JSON schema of configuration files, for editors."""

from __future__ import annotations

import json
from typing import Any

import click

from phasebus.initializer.cli.failures import reported
from phasebus.initializer.cli.output import write_out


@click.command(short_help="Print the JSON schema of configuration files.")
def schema() -> None:
    """Print the JSON schema of configuration files, for an editor's completion and checks.

    phasebus schema > phasebus.schema.json, and at the top of the configuration:
    # yaml-language-server: $schema=phasebus.schema.json
    """
    with reported():
        write_out(json.dumps(configuration_schema(), indent=2))


def configuration_schema() -> dict[str, Any]:
    """Return the JSON schema of a file that describes one model, or several on one cluster."""
    from phasebus.initializer.cluster import ClusterConfig
    from phasebus.initializer.node.config import LLMConfig
    from phasebus.initializer.pipeline.schema import json_schema

    return json_schema(LLMConfig, ClusterConfig, "models", title="Configuration of phasebus up")
