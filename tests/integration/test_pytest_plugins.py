"""The shipped fixture in the suites of users: with pytest-asyncio, in both of its modes, and with anyio's plugin."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest
{imports}

{fixture}
async def open_bus({backend}recording_bus):
    async with recording_bus:
        yield recording_bus


{mark}
async def test_first(open_bus):
    observed = []
    open_bus.observe(str, observed.append)
    async with open_bus.stream(str) as events:
        await open_bus.publish("go")
        assert await anext(events) == "go"
    open_bus.assert_order("go")


{mark}
async def test_second_has_a_bus_of_its_own(open_bus):
    assert open_bus.events == []
    await open_bus.publish(1)
"""

ASYNCIO_STRICT = TESTS.format(
    imports="import pytest_asyncio", fixture="@pytest_asyncio.fixture", backend="", mark="@pytest.mark.asyncio"
)
ASYNCIO_AUTO = TESTS.format(imports="", fixture="@pytest.fixture", backend="", mark="")
LOOPS = ("-o", "asyncio_default_fixture_loop_scope=function")  # pytest-asyncio warns without it
ANYIO = TESTS.format(imports="", fixture="@pytest.fixture", backend="anyio_backend, ", mark="@pytest.mark.anyio")


@pytest.mark.parametrize(
    ("tests", "options", "passed"),
    [
        pytest.param(ASYNCIO_STRICT, (), 2, id="pytest-asyncio strict"),
        pytest.param(ASYNCIO_AUTO, ("-o", "asyncio_mode=auto"), 2, id="pytest-asyncio auto"),
        pytest.param(ANYIO, (), 4, id="anyio on asyncio and trio"),
    ],
)
def test_fixture_opens_and_closes_under_another_plugin(
    tests: str, options: tuple[str, ...], passed: int, tmp_path: Path
) -> None:
    (tmp_path / "test_of_a_user.py").write_text(tests)
    (tmp_path / "conftest.py").write_text(
        "import pytest\n\n\n@pytest.fixture(params=['asyncio', 'trio'])\ndef anyio_backend(request):\n    return request.param\n"
    )
    settings = tmp_path / "pytest.ini"  # no others are read; pytest 9.2 refuses /dev/null
    settings.write_text("[pytest]\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-W",
        "error",
        "-p",
        "no:cacheprovider",
        "-c",
        str(settings),
        *LOOPS,
        *options,
    ]
    ended = subprocess.run(
        [*command, "--rootdir", tmp_path, tmp_path],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{passed} passed" in ended.stdout
