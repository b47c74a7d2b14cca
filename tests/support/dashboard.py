"""The shipped dashboard, with Grafana's variables replaced as Grafana replaces them."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.support.programs import ROOT

DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "phasebus.json"

VARIABLES = ("cluster", "namespace", "job", "instance", "model")
"""The variables that select series."""

_VALUES = {"__range": "1h", "__rate_interval": "5m", "__interval": "1m", "__rate_interval_ms": "300000"}


def panels() -> list[dict[str, Any]]:
    """Return the panels, rows included."""
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def targets() -> list[tuple[str, dict[str, Any]]]:
    """Return each query with the title of its panel."""
    return [(panel["title"], target) for panel in panels() for target in panel.get("targets", ())]


def expression(query: str, **variables: str) -> str:
    """Return `query` with its variables replaced.

    Args:
        query: A query of the dashboard.
        variables: The values of variables; Grafana's own without the leading ``__``. The others select everything.
    """
    given = {f"__{name}" if f"__{name}" in _VALUES else name: value for name, value in variables.items()}
    values = {**dict.fromkeys(VARIABLES, ".*"), **_VALUES, **given}
    return re.sub(r"\$(\w+)", lambda found: values.get(found[1], found[0]), query)
