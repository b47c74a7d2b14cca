"""The shipped rules on what real starts export, with a real Prometheus; and the runbook of each alert."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from phasebus.initializer.cli import main
from tests.integration.prometheus.conftest import FAILING, RUNNING
from tests.support.command import Command
from tests.support.programs import ROOT
from tests.support.prometheus import RULES, Prometheus, prometheus
from tests.support.waiting import wait_until

RUNBOOKS = ROOT / "docs" / "runbooks"


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((RULES / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


@pytest.fixture
def up(tmp_path: Path, model: Path) -> Iterator[Callable[..., Command]]:
    """Start a real node without an engine; with `callback`, one whose callback does that."""
    started: list[Command] = []

    def start(callback: str = "") -> Command:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        (folder / "mine.py").write_text(f"def mine(phase, config, data):\n    {callback or 'pass'}\n")
        fields = f"model: {model}\nengine: none\ncallbacks: ['mine:mine']\nservice: {{port: 0, linger_seconds: 600}}\n"
        (folder / "node.yaml").write_text(fields)
        started.append(Command("up", str(folder / "node.yaml"), state=folder))
        return started[-1]

    yield start
    for command in started:
        command.close()


def test_three_failed_starts_fire_their_alert_and_healthy_ones_none(up: Callable[..., Command], tmp_path: Path) -> None:
    failing = [up(f"raise {error}('no licence')") for error in ("ValueError", "RuntimeError", "PermissionError")]
    healthy = [up(), up()]
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "rules.yml").write_text((RULES / "rules.yml").read_text())
    targets = [{"targets": [command.url() for command in (*failing, *healthy)]}]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml"],
        "scrape_configs": [{"job_name": "any name", "static_configs": targets}],
    }
    with prometheus(rules, config) as running:
        wait_until(lambda: len(failed(running.get("alerts"))) == 3, "the alert fires for each failed start")
        wait_until(lambda: len(running.query("phasebus_ready == 1")) == 2, "the healthy starts are scraped")
        passes = "prometheus_rule_group_iterations_total"
        before = iterations(running.metrics(), passes)
        wait_until(lambda: iterations(running.metrics(), passes) > before + 10, "the rules are evaluated again")
        found = running.get("alerts")["alerts"]
    by_instance = {each["labels"]["instance"]: each for each in found if "Failed" in each["labels"]["alertname"]}
    assert {each["labels"]["instance"] for each in found} == {command.url() for command in failing}  # none is healthy
    assert {each["labels"]["alertname"] for each in found} == {"PhasebusStartUpFailed", "PhasebusCallbacksFailing"}
    assert by_instance[failing[0].url()]["annotations"]["description"].startswith(
        "ValueError in the phase pre_initialization. The outcome is failed."
    )
    for command in failing:
        command.send(signal.SIGTERM)
        assert command.wait() == 1


def test_of_20_pods_only_those_that_fail_or_do_not_end_raise_alerts(pods: Prometheus) -> None:
    expected = {("PhasebusStartUpFailed", f"pod-{number}") for number in FAILING}
    expected.add(("PhasebusStepStuck", f"pod-{RUNNING}"))

    def raised() -> set[tuple[str, str]]:
        """The alerts, also those that wait for their time."""
        return {(each["labels"]["alertname"], each["labels"]["instance"]) for each in pods.get("alerts")["alerts"]}

    # the mean of the last seven days is not exact until there are some more scrapes
    wait_until(lambda: raised() == expected, "exactly these alerts are raised")
    assert raised() == expected


def failed(answer: Any) -> list[Any]:
    return [
        each
        for each in answer["alerts"]
        if each["labels"]["alertname"] == "PhasebusStartUpFailed" and each["state"] == "firing"
    ]


def iterations(metrics: str, name: str) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in metrics.splitlines() if line.startswith(name))


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: str(alert["alert"]))
def test_every_alert_has_a_summary_a_description_and_a_runbook(alert: dict[str, Any]) -> None:
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    assert alert["labels"]["severity"] in ("critical", "warning")
    text = (ROOT / alert["annotations"]["runbook_url"]).read_text()
    assert text.startswith(f"# {alert['alert']}\n")
    for heading in ("## Meaning", "## Look at", "## Do"):
        assert f"\n{heading}\n" in text


def test_no_alert_depends_on_the_name_of_a_job() -> None:
    assert [
        alert["alert"] for alert in alerts() if re.search(r"job *(=|!)", alert["expr"]) or "absent" in alert["expr"]
    ] == []


def test_every_runbook_is_of_an_alert() -> None:
    named = {Path(alert["annotations"]["runbook_url"]).name for alert in alerts()}
    assert {path.name for path in RUNBOOKS.iterdir()} == {*named, "README.md"}
    listed = set(re.findall(r"\]\(([a-z-]+\.md)\)", (RUNBOOKS / "README.md").read_text()))
    assert listed == named


def test_every_command_of_a_runbook_exists() -> None:
    lines = "\n".join(path.read_text() for path in sorted(RUNBOOKS.glob("*.md")))
    found = re.findall(r"(?:^ *|`)phasebus ([a-z]+)(?: ([a-z-]+)\b)?", lines, re.MULTILINE)
    assert ("report", "critical-path") in found
    for command, inner in found:
        words = [command, inner] if command == "report" and inner else [command]
        assert CliRunner().invoke(main, [*words, "--help"]).exit_code == 0, words


def test_every_metric_in_a_runbook_is_exported() -> None:
    from phasebus.telemetry import names

    known = {family.name for family in names.all_families()}
    recorded = set(re.findall(r"record: (\S+)", (RULES / "rules.yml").read_text()))
    for path in RUNBOOKS.glob("*.md"):
        used = set(re.findall(r"\bphasebus[_:][a-z0-9_:]+", path.read_text()))
        plain = {re.sub("^phasebus_cluster_", "phasebus_", each) for each in used}
        plain = {re.sub("_(bucket|sum|count)$", "", each) for each in plain}
        assert {each for each in plain if each not in known and f"phasebus_cluster_{each[9:]}" not in known} <= recorded
