"""The time remaining of a start that is like earlier ones, where a prober, a scraper, the page and a person find it."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.support.command import Command
from tests.support.waiting import wait_until

CALLBACK = """
import pathlib, time

def slow(phase, config, data):
    if phase != "pre_engine_init":
        return
    wait = pathlib.Path({wait!r})
    deadline = time.monotonic() + 120
    while wait.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.5)
"""


def test_the_third_start_of_a_configuration_has_a_forecast(tmp_path: Path, model: Path) -> None:
    wait, state = tmp_path / "wait", tmp_path / "state"
    (tmp_path / "mine.py").write_text(CALLBACK.format(wait=str(wait)))
    config = tmp_path / "node.yaml"
    config.write_text(f"model: {model}\nengine: none\ncallbacks: ['mine:slow']\n")

    def up(*options: str) -> Command:
        return Command("up", str(config), "--port", "0", *options, state=state)

    for _ in range(2):
        assert up("--once").wait() == 0
    wait.touch()
    third = up()
    try:
        wait_until(lambda: third.get("/readyz").json()["remaining"], "there is a forecast")
        remaining = third.get("/readyz").json()["remaining"]
        assert (remaining["runs"], remaining["basis"]) == (2, "same")
        assert 0 <= remaining["low"] <= remaining["seconds"] <= remaining["high"]
        assert "\nphasebus_startup_remaining_seconds " in third.get("/metrics").text
        assert third.get("/timeline").json()["remaining"]["runs"] == 2

        def phases_with_usual() -> list[str]:
            steps = third.get("/timeline").json()["steps"]
            return [step["name"] for step in steps if step["kind"] == "phase" and step.get("usual")]

        wait_until(phases_with_usual, "a phase has its usual duration")
        wait.unlink()
        wait_until(lambda: third.get("/readyz").status_code == 200, "it is ready")
        wait_until(lambda: third.get("/readyz").json()["remaining"] is None, "nothing remains")
        wait_until(lambda: "configuration " in third.stdout, "the configuration is printed")
    finally:
        wait.unlink(missing_ok=True)
        third.send(signal.SIGINT)
        third.wait()
