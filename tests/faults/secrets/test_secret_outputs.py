"""Secrets of every kind enter a start in every way, and none leaves it in any output."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from phasebus.bus import Bus, Context, PhaseEvent, subscribe_all
from phasebus.initializer.cli import main
from phasebus.initializer.cli.failures import described
from phasebus.initializer.node.command import Command
from phasebus.initializer.node.config import load_config
from phasebus.initializer.node.events import NODE, PreDownload
from phasebus.initializer.pipeline.errors import ConfigError
from phasebus.initializer.pipeline.phases import Phase, run_phases
from phasebus.initializer.pipeline.wiring import observe_all
from phasebus.observers import LogObserver, ProgressObserver
from phasebus.telemetry import RunIdentity, Telemetry
from phasebus.telemetry.analysis import page_state, perfetto, plot
from phasebus.telemetry.journal import read_journal
from phasebus.telemetry.redaction import forget_secrets, learn_environment
from phasebus.telemetry.service.page import page_of
from tests.support.otlp import otlp_sink
from tests.support.waiting import wait_until

LETTERS = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ"
SECRET = st.builds(
    lambda letters, digits, tail: f"{letters}{digits}{tail}",
    st.text(LETTERS, min_size=6, max_size=12),
    st.integers(100, 9999),
    st.text(LETTERS + "+/_.~", max_size=6).map(lambda tail: f"{tail}Z9"),
)
NAMES = ["api_key", "HF_TOKEN", "db_password", "AccountKey", "client-secret", "x-auth-token", "AWS_SECRET_ACCESS_KEY"]
TEXTS = [
    "{name}={secret}",
    "{name}: {secret}",
    "'{name}': '{secret}'",
    '{{"{name}": ["{secret}"]}}',
    "--{name} {secret}",
    "https://user:{secret}@host/m",
    "https://host/m?sig={secret}&page=1",
    "Authorization: Token {secret}",
    "Cookie: sid={secret}; theme=dark",
    "Headers([('authorization', 'Bearer {secret}')])",
    "('{name}', '{secret}')",
    "env:\n- name: {name}\n  value: {secret}\n",
    '{{"name": "{name}", "value": "{secret}"}}',
    "<Error><{name}>{secret}</{name}></Error>",
    "argv: ['serve', '--{name}', '{secret}', '--port', '1']",
    "args: [--{name}, {secret}]",
    "machine h login me password {secret}",
    "curl -u me:{secret} https://host",
    "%22{name}%22%3A%22{secret}%22",
    "Error: Incorrect API key provided: {secret}.",
    "https://hooks.slack.com/services/T01/B01/{secret}",
]
DRAIN_SECONDS = 120.0
"""The usual deadlines of a start are for a user who waits; a busy machine may exceed them."""

REPORTS = [["blame"], ["blame", "--json"], ["critical-path"], ["critical-path", "--json"], ["gaps"], ["stragglers"]]


def is_observed(telemetry: Telemetry) -> bool:
    """Whether the page and the probes have the end of the start: each observer has a thread of its own."""
    steps = telemetry.timeline.state()["steps"]
    return "error" in telemetry.status.describe() and bool(steps) and all("end" in step for step in steps)


def outputs_of(name: str, secret: str, text: str, folder: Path) -> dict[str, str]:
    """Return everything that leaves a start into which `secret` enters as `name`, and as `text`."""
    forget_secrets()
    log, terminal = io.StringIO(), io.StringIO()
    handler = logging.StreamHandler(log)
    logger = logging.getLogger("phasebus.startup")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    outputs: dict[str, str] = {}

    def returning(event: PhaseEvent, context: Context) -> dict[str, Any]:
        return {"login": {name: secret}}

    def failing(event: PreDownload) -> None:
        raise RuntimeError(f"cannot log in with {secret}, as {text}")

    async def start() -> None:
        learn_environment({name.upper().replace("-", "_"): secret})
        identity = RunIdentity.fresh("n", {})
        command = Command(arguments=["vllm", "serve", "m", f"--{name}", secret, text])
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.url, "OTEL_BSP_SCHEDULE_DELAY": "1"}
        async with Telemetry(identity, port=0, environment=environment) as telemetry:
            async with Bus("n", timing=True, drain_seconds=DRAIN_SECONDS) as bus:
                journal = observe_all(bus, telemetry)
                for observer in (LogObserver(), ProgressObserver(Console(file=terminal, width=500))):
                    bus.observe(None, observer)
                subscribe_all(bus, [returning, failing])
                attributes = {"command": command.name, name: secret, "address": text}
                context = Context({"options": {name: secret}})
                phases = [Phase(name="download", before=PreDownload)]
                try:
                    async with bus.step(NODE, text, attributes=attributes) as step:
                        for done in (0, 5, 10):
                            await step.progress(done, 10, "By")
                        await run_phases(bus, phases, context, {name: [secret]})
                except RuntimeError as error:
                    outputs["stderr"] = "\n".join(described(error))
                await anyio.to_thread.run_sync(wait_until, lambda: is_observed(telemetry), "all steps are observed")
                assert telemetry.service is not None
                async with httpx.AsyncClient(base_url=telemetry.service.url, trust_env=False, timeout=60) as client:
                    for path in ("/metrics", "/readyz", "/timeline"):
                        outputs[path] = (await client.get(path)).text
            steps = {step["id"] for step in telemetry.timeline.state()["steps"]}
            await anyio.to_thread.run_sync(
                wait_until, lambda: {span.span_id.hex() for span in sink.spans} >= steps, "all spans are exported"
            )
        run = read_journal(journal)
        outputs["journal"] = journal.read_text()
        outputs["plot"], outputs["page"] = plot(run), page_of(page_state(run))
        outputs["perfetto"] = json.dumps(perfetto(run))
        for report in REPORTS:
            outputs[f"report {' '.join(report)}"] = CliRunner().invoke(main, ["report", *report, run.path.stem]).output

    try:
        with otlp_sink() as sink:
            anyio.run(start)
            outputs["OTLP"] = "\n".join(
                [*(str(each.content) for each in sink.exports), *(str(each.content) for each in sink.pushes)]
            )
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    outputs["log"], outputs["terminal"] = log.getvalue(), terminal.getvalue()
    config = folder / "config.yaml"
    config.write_text(json.dumps({"model": "m", "nodes": text, "engine_args": [{name: secret}]}))
    with pytest.raises(ConfigError) as error:
        load_config(config)
    outputs["configuration error"] = "\n".join(described(error.value))
    return outputs


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PHASEBUS_STATE_DIR", str(tmp_path / "state"))
    return tmp_path


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(name=st.sampled_from(NAMES), secret=SECRET, text=st.sampled_from(TEXTS))
def test_no_output_of_a_start_contains_a_secret(folder: Path, name: str, secret: str, text: str) -> None:
    outputs = outputs_of(name, secret, text.format(name=name, secret=secret), folder)
    assert {output for output, content in outputs.items() if secret in content} == set()
    masked = ("journal", "/timeline", "page", "stderr", "log", "OTLP", "perfetto", "configuration error")
    assert {output for output in masked if "[redacted]" not in outputs[output]} == set()
    assert "callback" in outputs["report blame --json"]  # the table leaves out steps that are short beside the others
