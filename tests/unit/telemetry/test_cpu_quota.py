"""The CPU quota of control groups, of both versions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from phasebus.telemetry.history import machine
from phasebus.telemetry.history.cpu_quota import cpu_quota


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/pod/main\n", {"pod/main/cpu.max": "max 100000", "pod/cpu.max": "50000 100000"}, 0.5),
        ("0::/not/seen/here\n", {"cpu.max": "300000 100000"}, 3.0),
        ("5:cpu,cpuacct:/a\n", {"cpu,cpuacct/a/cpu.cfs_quota_us": "150000\n", "cpu,cpuacct/a/cpu.cfs_period_us": "100000\n"}, 1.5),
        ("5:cpu,cpuacct:/gone\n", {"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4.0),
        ("5:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("0::/\n", {"cpu.max": "1 0"}, None),
        ("rubbish", {"cpu.max": "\xff"}, None),
        ("", {}, None),
    ],
)  # fmt: skip
def test_quota_is_the_smallest_of_all_groups_of_the_process(
    own: str, files: Mapping[str, str], expected: float | None, tmp_path: Path
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="latin-1")
    (tmp_path / "own").write_text(own)
    assert cpu_quota(tmp_path, tmp_path / "own") == expected
    assert cpu_quota(tmp_path / "gone", tmp_path / "gone") is None


@pytest.mark.parametrize(("quota", "expected"), [(None, 8), (2.0, 2), (0.5, 0.5), (16.0, 8)])
def test_usable_cpus_are_limited_by_the_quota(
    quota: float | None, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(machine, "cpu_quota", lambda: quota)
    assert repr(machine.usable_cpus()) == repr(expected)
