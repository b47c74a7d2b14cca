"""The README's first example, as pasted but for the model: that one is on a hub."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from phasebus.initializer.cli.demo_model import tiny_model_path, write_tiny_model
from phasebus.telemetry.journal import read_journal
from tests.support.docs import blocks


def test_the_first_example_starts_an_engine_that_answers(tmp_path: Path) -> None:
    (example,) = blocks("README.md", "python")
    model = str(write_tiny_model(tiny_model_path()))
    for theirs, ours in (
        ('"Qwen/Qwen2.5-0.5B-Instruct"', repr(model)),
        ('"max_model_len": 256}', '"max_model_len": 256, "enforce_eager": True}'),  # compiling takes a minute
    ):
        assert theirs in example
        example = example.replace(theirs, ours)
    script = tmp_path / "example.py"
    script.write_text(example)
    environment = os.environ | {"PHASEBUS_STATE_DIR": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False, env=environment, timeout=400
    )
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"^short_contexts \{.*'max_model_len': 256.*PreEngineInit\(\)$", ended.stdout, re.MULTILINE), (
        ended.stdout
    )
    (journal,) = tmp_path.glob("runs/*.jsonl")
    assert {step.outcome for step in read_journal(journal).steps} == {"finished"}
