"""The programs in examples/, each run as its reader would."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from phasebus.initializer.cli import main
from tests.support.docs import ROOT, run_example

pytestmark = pytest.mark.anyio

FOLDER = ROOT / "examples"
PRINTED = {
    "change_a_start": r"engine_args = \{\} by phasebus\nengine_args = \{'max_model_len': 256\} by short_contexts\n",
    "stop_a_start": r"the model has 2 bytes, and only 1 fit\n  .*'check_size'",
    "observe_steps": r" s  phase download\n",
    "follow_a_start": r"StepStarted +node .*\n(.*\n)*.*StepFinished +node ",
    "scrape_metrics": r"during the start: 503\nafterwards: 200\nphasebus_phases_total\{",
    "read_a_journal": r"ready in 0\.\d+ s\n",
    "bring_your_own_engine": r"READY\n",
    "phases_of_your_own": r"indexing 8 documents at once\n",
    "guard_an_application": r"403\nhello phasebus\n",
}
"""What each example prints, as a regular expression."""


def test_every_example_is_tested_and_listed() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == set(PRINTED)
    page = (FOLDER / "README.md").read_text()
    assert [name for name in PRINTED if f"({name}.py)" not in page] == []


@pytest.mark.parametrize("name", PRINTED)
async def test_example_prints_what_it_shows(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable in ("PHASEBUS_TOKEN", "PHASEBUS_HOSTS", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    await run_example((FOLDER / f"{name}.py").read_text())
    printed = capsys.readouterr().out
    assert re.search(PRINTED[name], printed), printed


def test_configuration_of_the_examples_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MODEL", "ENGINE", "MAX_MODEL_LEN", "PAGE_PORT", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    shutil.copytree(FOLDER / "node", tmp_path / "node")
    monkeypatch.chdir(tmp_path / "node")
    try:
        checked = CliRunner().invoke(main, ["check", "node.yaml"])
        assert checked.exit_code == 0, checked.output
        monkeypatch.setenv("MAX_MODEL_LEN", "many")
        monkeypatch.setenv("PAGE_PORT", "many")
        wrong = CliRunner().invoke(main, ["check", "node.yaml"])
        assert wrong.exit_code == 1
        assert "service.port" in wrong.output
    finally:
        sys.modules.pop("node_callbacks", None)
