"""`phasebus up`: start the node, or the nodes, that a YAML file describes."""

from __future__ import annotations

from pathlib import Path

import click

from phasebus.initializer.cli.interrupts import interruptible_imports
from phasebus.initializer.cli.options import starting_options


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--prompt", help="Generate from this prompt once the node is ready, and print the text.")
@click.option(
    "--set",
    "assignments",
    metavar="NAME=VALUE",
    multiple=True,
    help="Set a field of the configuration, such as engine_args.max_model_len=4096; the value is YAML. May be repeated.",
)
@starting_options
def up(
    config: Path,
    prompt: str | None,
    assignments: tuple[str, ...],
    *,
    once: bool,
    host: str | None,
    port: int | None,
    linger: float | None,
    verbose: bool,
) -> None:
    """Start the node, or the nodes, that the YAML file CONFIG describes, and serve the metrics until Ctrl-C.

    CONFIG may be - for standard input.
    """
    with interruptible_imports():  # here, so that the help of the command needs none of them
        from phasebus.initializer.cli.failures import reported
        from phasebus.initializer.cli.start import start_and_serve
        from phasebus.initializer.cluster import load_cluster_config
        from phasebus.initializer.pipeline import yaml_file  # noqa: F401  # a yaml.py beside CONFIG is another module
        from phasebus.initializer.pipeline.callbacks import importing_from
        from phasebus.initializer.pipeline.settings import folder_of

    with reported(tracebacks=verbose, starts=True) as report:
        with importing_from(folder_of(config)):
            loaded = load_cluster_config(config, assignments)
        service = {"host": host, "port": port, "linger_seconds": linger}
        start_and_serve(loaded, report, prompt=prompt, once=once, service=service)
