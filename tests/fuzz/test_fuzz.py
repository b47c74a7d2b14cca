"""The fuzz targets hold for their seeds, and for the inputs of some seconds of fuzzing, the same ones each time."""

from __future__ import annotations

import importlib
import io
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

import tests.fuzz.__main__
from tests.fuzz.__main__ import main
from tests.fuzz.process import _result, repetition, run, run_all
from tests.fuzz.shrinking import shrunk
from tests.fuzz.targets import TARGETS, load

SECONDS = float(os.environ.get("FUZZ_SECONDS", "10"))
"""Time for each target, in seconds; as many targets as there are CPUs are tried at a time."""

START_SECONDS = 60.0
"""What the start of the targets and shrinking an input may take beside it."""


@pytest.mark.parametrize("target", TARGETS)
def test_target_accepts_its_seeds(target: str) -> None:
    module = load(target)
    for seed in module.SEEDS:
        module.check(seed)
    for package in module.INSTRUMENTED:
        importlib.import_module(package)


@pytest.mark.timeout(len(TARGETS) * (SECONDS + START_SECONDS))
def test_fuzzing_finds_no_input_that_fails(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("atheris", reason="atheris has no wheel for this machine")
    results = run_all(TARGETS, tmp_path, seconds=SECONDS, seed=1)  # `make fuzz` tries new inputs
    assert {each.target: each.error for each in results if each.failed} == {}, capfd.readouterr().out
    assert all(each.inputs > len(load(each.target).SEEDS) for each in results)


def test_number_of_inputs_limits_a_run_and_is_reported(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris has no wheel for this machine")
    assert run("listing", tmp_path, inputs=500, seed=1).inputs == 500


def test_failing_input_is_shrunk_to_what_it_fails_on() -> None:
    def check(data: bytes) -> None:
        if b"ab" in data and b"c" in data:
            raise ValueError
        if len(data) < 2:
            raise TypeError

    assert shrunk(check, b"xx" * 50 + b"c" + b"y" * 77 + b"ab" + b"z" * 31) == b"cab"
    assert shrunk(check, b"fine") == b"fine"


def test_repetition_passes_the_same_input_to_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "listing-crash"
    file.write_bytes(b'\0{"siblings": \xff\n')
    checked: list[bytes] = []
    monkeypatch.setattr(tests.fuzz.__main__, "load", lambda _: SimpleNamespace(check=checked.append))
    *_, here, elsewhere = repetition("listing", file).splitlines()
    main(here.partition("tests.fuzz ")[2].split())
    decode, _, repeat = elsewhere.partition(":")[2].partition("|")
    decoded = subprocess.run(["bash", "-c", decode], capture_output=True, check=True).stdout
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(decoded)))
    main(repeat.partition("tests.fuzz ")[2].split())
    assert checked == [file.read_bytes(), file.read_bytes()]


def test_result_of_a_failing_target_names_the_exception_and_the_input() -> None:
    output = (
        " === Uncaught Python exception: ===\nValueError: no number\nTraceback (most recent call last):\n"
        "Test unit written to x/journal-crash-1\nstat::number_of_executed_units: 4093\nstat::average_exec_per_sec: 82\n"
    )
    result = _result("journal", output, 77)
    assert (result.error, result.crash, result.inputs) == ("ValueError: no number", Path("x/journal-crash-1"), 4093)
    assert "journal" in str(result)
    assert "failed: ValueError: no number" in str(result)
    assert _result("journal", "killed", -9).failed
