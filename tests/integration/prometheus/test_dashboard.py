"""The shipped dashboard: every query against a real Prometheus that scrapes 20 pods, and its structure."""

from __future__ import annotations

import json
import re
from statistics import mean
from typing import Any

import pytest

from phasebus.telemetry import names
from tests.integration.prometheus.conftest import AGE, FAILING, FIRST, MODELS, PODS, RUNNING, SECOND
from tests.support.dashboard import DASHBOARD, VARIABLES, expression, panels, targets
from tests.support.prometheus import Prometheus

_KINDS = {"row", "stat", "timeseries", "table", "bargauge"}
_WITHOUT_DATA = {
    "Nodes by state",
    "Callbacks by time",
    "Failed callbacks, and lost events and spans",
    "Retries",
    "Files by outcome",
}
"""Panels about what the pods of this test do not have: a hub, callbacks, retries, files."""


def run(pods: Prometheus, title: str, number: int = 0, **variables: str) -> list[tuple[Any, float]]:
    """The answer to a query of the panel with this title."""
    (panel,) = (panel for panel in panels() if panel["title"] == title)
    return pods.query(expression(panel["targets"][number]["expr"], **variables))


@pytest.mark.parametrize(("title", "query"), [(title, target["expr"]) for title, target in targets()])
def test_every_query_of_the_dashboard_is_answered(pods: Prometheus, title: str, query: str) -> None:
    answer = pods.query(expression(query))
    assert answer or title in _WITHOUT_DATA


def test_the_stats_count_starts_ready_and_failed_pods(pods: Prometheus) -> None:
    values = {title: run(pods, title)[0][1] for title in ("Starting", "Failed", "Lost nodes", "Longest running start")}
    assert (values["Starting"], values["Failed"], values["Lost nodes"]) == (1, len(FAILING), 0)
    assert values["Longest running start"] >= AGE


def test_the_reasons_of_failures_name_phase_and_error(pods: Prometheus) -> None:
    rows = [labels for labels, _ in run(pods, "Failures and their reasons")]
    assert {(row["instance"], row["phase"], row["error"]) for row in rows} == {
        (f"pod-{number}", "engine_init", "MemoryError") for number in FAILING
    }


def test_the_table_of_running_steps_has_the_start_that_runs(pods: Prometheus) -> None:
    rows = [(labels["instance"], labels["kind"], labels["name"]) for labels, _ in run(pods, "Running phases and steps")]
    assert (f"pod-{RUNNING}", "phase", "engine_init") in rows


def test_top_steps_add_up_to_the_mean_start_of_the_engine(pods: Prometheus) -> None:
    starts = [*(seconds for number, seconds in FIRST.items() if number not in FAILING), *SECOND.values()]
    found = {labels["step"]: seconds for labels, seconds in run(pods, "Top steps by exclusive time")}
    assert sum(found.values()) == pytest.approx(mean(starts) / 2, rel=0.1)


def test_a_variable_selects_the_starts_of_one_model(pods: Prometheus) -> None:
    small = run(pods, "p50 and p95 by model, over a day", model="small")
    assert {labels["model"] for labels, _ in small} == {"small"}
    both = run(pods, "p50 and p95 by model, over a day")
    assert {labels["model"] for labels, _ in both} == set(MODELS.values())


def test_each_start_is_a_dot_when_it_becomes_ready_and_not_later(pods: Prometheus) -> None:
    ready = {f"pod-{number}" for number in range(PODS) if number not in {*FAILING, RUNNING}}
    assert {labels["instance"] for labels, _ in run(pods, "Each start")} == ready
    ready_a_year_from_now = str(-365 * 24 * 3600 * 1000)
    assert run(pods, "Each start", rate_interval_ms=ready_a_year_from_now) == []


def test_no_data_source_is_hard_coded() -> None:
    text = DASHBOARD.read_text()
    assert set(re.findall(r'"uid": "(.*?)"', text)) == {"${datasource}", "phasebus"}
    assert "DS_PROMETHEUS" not in text


def test_the_variables_are_those_that_operators_select_by() -> None:
    variables = {each["name"]: each for each in json.loads(DASHBOARD.read_text())["templating"]["list"]}
    assert tuple(variables) == ("datasource", *VARIABLES)
    assert variables["datasource"]["type"] == "datasource"
    for name, variable in variables.items():
        if name != "datasource":
            assert variable["allValue"] == ".*"  # also what has no such label
            assert variable["query"]["query"].startswith("label_values(phasebus_")
    for title, target in targets():
        for name in ("cluster", "namespace", "job", "instance"):
            assert f'{name}=~"${name}"' in target["expr"], title


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: str(panel["title"]))
def test_every_panel_has_a_description_a_unit_thresholds_and_a_place(panel: dict[str, Any]) -> None:
    assert panel["type"] in _KINDS
    assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    if panel["type"] == "row":
        return
    defaults = panel["fieldConfig"]["defaults"]
    assert panel["description"].endswith(".")
    assert defaults["unit"]
    assert defaults["thresholds"]["steps"][0]["value"] is None
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels())
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_the_dashboard_links_to_the_page_of_an_instance_and_to_traces() -> None:
    links = [
        link["url"] for panel in panels() for link in panel.get("fieldConfig", {}).get("defaults", {}).get("links", ())
    ]
    assert len(links) >= 5
    assert set(links) == {"http://${__field.labels.instance}/", "http://${__data.fields.instance}/"}
    exemplars = [target["expr"] for _, target in targets() if target.get("exemplar")]
    histograms = [family.name for family in names.all_families() if family.type in ("histogram", "counter")]
    assert exemplars
    for query in exemplars:
        assert any(name in query for name in histograms)
