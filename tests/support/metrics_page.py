"""The tables of docs/reference/metrics.md, from `phasebus.telemetry.names`: ``python -m tests.support.metrics_page`` writes them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from phasebus.telemetry import names
from phasebus.telemetry.families import Family
from tests.support.programs import ROOT

PAGE: Final = ROOT / "docs" / "reference" / "metrics.md"
MARK: Final = "<!-- The tables below are generated: python -m tests.support.metrics_page -->\n"

_TITLES: Final = {
    "cluster": "The start of a cluster",
    "node": "The start of a node",
    "phase": "Phases",
    "callback": "Callbacks",
    "download": "Downloads",
    "listing": "Lists of a model's files",
    "file": "Files of a download",
    "ray": "Ray",
    "engine": "The start of the engine",
    "engine_restart": "Restarts of the engine",
    "engine_step": "Steps of the engine's start",
    "training": "Training runs",
    "training_workers": "Groups of training workers",
    "training_report": "Reports of training workers",
    "dataset": "Dataset pipelines",
    "dataset_execution": "Dataset executions",
    "dataset_operator": "Dataset operators",
    "request": "Requests to a served application",
}


def sections() -> dict[str, tuple[Family, ...]]:
    """Return the families by the title of their section, in the order of the page."""
    return {
        "Every process that starts something": (*names.OF_NODES, *names.OF_EVERY_PROCESS),
        **{_TITLES[kind]: row.families for kind, row in names.KINDS.items()},
        "Steps of any other kind": names.OTHER_KIND.families,
        "The engine": names.OF_THE_ENGINE,
        "The telemetry itself": names.OF_THE_BUS,
        "A hub, for each of its nodes": names.OF_THE_HUB,
    }


def tables() -> str:
    """Return the generated part of the page."""
    return "\n".join(
        f"### {title}\n\n| name | type | unit | labels | meaning |\n| --- | --- | --- | --- | --- |\n"
        f"{''.join(map(_row, families))}\n```promql\n{''.join(map(_query, families))}```\n"
        for title, families in sections().items()
    )


def queries() -> dict[str, str]:
    """Return the queries of the part that is not generated, by the headings above them."""
    written = PAGE.read_text().partition(MARK)[0]
    return dict(re.findall(r"^### (.*?)\n.*?^```promql\n(.*?)^```$", written, re.MULTILINE | re.DOTALL))


def write() -> None:
    """Replace the generated part of the page."""
    PAGE.write_text(PAGE.read_text().partition(MARK)[0] + MARK + "\n" + tables())


def _row(family: Family) -> str:
    return f"| `{family.name}` | {family.type} | {family.unit or '1'} | {_listed(family.labels)} | {family.help} |\n"


def _query(family: Family) -> str:
    return f"{family.example}\n"


def _listed(labels: Iterable[str]) -> str:
    return ", ".join(f"`{label}`" for label in labels) or "none"


if __name__ == "__main__":
    write()
