"""`phasebus runs`: the runs that are kept, and their configurations."""

from phasebus.initializer.cli.runs.group import runs

__all__ = ["runs"]
