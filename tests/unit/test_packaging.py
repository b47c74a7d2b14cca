from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("bus", "telemetry", "observers", "initializer")


@pytest.mark.parametrize("room", ROOMS)
def test_the_import_name_links_to_the_rooms_at_the_root(room: str) -> None:
    link = ROOT / "src" / "phasebus" / room
    assert link.is_symlink()
    assert link.resolve() == ROOT / room


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_is_there_sorted_and_documented(room: str) -> None:
    module = importlib.import_module(f"phasebus.{room}")
    names = list(module.__all__)
    assert names == sorted(names, key=_as_ruff_sorts)
    made = [(name, getattr(module, name)) for name in names]
    undocumented = [
        name for name, thing in made if inspect.isclass(thing) or inspect.isroutine(thing) if not thing.__doc__
    ]
    assert undocumented == []


def _as_ruff_sorts(name: str) -> tuple[int, str]:
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("phasebus", "anyio"),
        ("phasebus.bus", "opentelemetry, pydantic, prometheus_client, ray, vllm"),
        ("phasebus.initializer", "ray, vllm, torch, transformers"),
    ],
)
def test_importing_a_room_pulls_in_nothing_heavy(module: str, forbidden: str) -> None:
    script = (
        f"import sys, {module}\n"
        f"found = [name for name in '{forbidden}'.split(', ') if name in sys.modules]\n"
        "sys.exit(f'imported: {found}' if found else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_inspection_of_a_package_does_not_import_its_public_names() -> None:
    program = (
        "import sys, phasebus.telemetry, phasebus.initializer\n"
        "for package in (phasebus.telemetry, phasebus.initializer):\n"
        "    hasattr(package, '__wrapped__'), hasattr(package, '__path__')\n"
        "print([name for name in sys.modules if name.endswith('._public')])\n"
        "print(phasebus.telemetry.Telemetry.__name__, 'Telemetry' in phasebus.telemetry.__all__)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\nTelemetry True\n"
