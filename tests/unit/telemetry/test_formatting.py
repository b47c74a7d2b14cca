from __future__ import annotations

import math

import pytest

from phasebus.telemetry.formatting import (
    format_duration,
    format_progress,
    format_quantity,
    format_step,
    format_title,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 ms"),
        (0.00123, "1.2 ms"),
        (0.085, "85 ms"),
        (0.9996, "1 s"),
        (1.64, "1.64 s"),
        (59.94, "59.9 s"),
        (60.0, "1 min"),
        (185.0, "3 min 5 s"),
        (3720.0, "1 h 2 min"),
        (-1.0, "0 ms"),
        (math.nan, "unknown"),
        (math.inf, "unknown"),
    ],
)
def test_format_duration_returns_two_or_three_digits(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("amount", "unit", "text"),
    [
        (999, "By", "999 B"),
        (999.6, "By", "1 kB"),
        (1.234e9, "By", "1.23 GB"),
        (1234567, "1", "1234567"),
        (0.5, "1", "0.5"),
        (3, "s", "3 s"),
        (math.nan, "By", "unknown"),
    ],
)
def test_format_quantity_returns_the_amount_with_its_unit(amount: float, unit: str, text: str) -> None:
    assert format_quantity(amount, unit) == text


@pytest.mark.parametrize(
    ("done", "total", "rate", "text"),
    [
        (3e9, 10e9, 500e6, "3 GB of 10 GB (30 %), 500 MB/s, 14 s left"),
        (3e9, None, 500e6, "3 GB, 500 MB/s"),
        (3e9, 10e9, None, "3 GB of 10 GB (30 %)"),
        (999, 1000, 0.0, "999 B of 1 kB (99 %)"),
        (20e9, 10e9, None, "20 GB of 10 GB (100 %)"),
        (math.nan, math.nan, math.nan, "unknown"),
    ],
)
def test_format_progress_names_what_is_known(done: float, total: float | None, rate: float | None, text: str) -> None:
    assert format_progress(done, total, "By", rate) == text


def test_format_title_omits_the_kind_of_phases_and_engine_steps() -> None:
    assert format_title("phase", "engine_init") == "engine init"
    assert format_title("training_workers", "a_b") == "training workers a_b"
    assert format_title("ray", "start_node_actor") == "ray start node actor"
    assert format_title("cluster", "cluster") == "cluster"


@pytest.mark.parametrize(
    ("kind", "name", "attributes", "node", "text"),
    [
        ("engine_step", "load_weights", {"process": "Worker_TP3"}, "node-17", "load weights · Worker_TP3 on node-17"),
        ("engine_step", "import_modules", {"module": "torch", "process": "w"}, "", "import modules torch · w"),
        ("callback", "add_flag", {"phase": "pre_download"}, "", "callback add_flag in pre download"),
    ],
)
def test_format_step_names_the_module_the_process_and_the_phase(
    kind: str, name: str, attributes: dict[str, str], node: str, text: str
) -> None:
    assert format_step({"kind": kind, "name": name, "attributes": attributes}, node) == text
