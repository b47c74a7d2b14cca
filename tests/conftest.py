from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "busy machines",
    max_examples=25,  # `make fuzz` tries more
    deadline=None,
    derandomize="CI" in os.environ,  # the same commit passes or fails each time; other runs try new examples
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("few examples", settings.get_profile("busy machines"), max_examples=10, derandomize=True)
settings.load_profile("busy machines")

FOLDERS_SHOWN = 10
SECONDS_OF_A_LONG_RUN = 60.0


def pytest_configure() -> None:
    """Handle SIGINT also where a shell without job control runs pytest in the background.

    Such a shell has it ignored, every process that a test starts inherits that, and tests interrupt those processes.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print which folders took the most time, after a run of more than a minute."""
    seconds: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[str(PurePosixPath(report.nodeid.partition("::")[0]).parent)] += report.duration  # type: ignore[assignment]
    if seconds.total() > SECONDS_OF_A_LONG_RUN:
        terminalreporter.section(f"slowest folders of {seconds.total():.0f} s")
        for folder, each in seconds.most_common(FOLDERS_SHOWN):
            terminalreporter.write_line(f"{each:7.1f} s  {folder}")


@pytest.fixture(autouse=True)
def no_known_secrets() -> None:
    """Remove the secrets that other tests have registered."""
    if (known := sys.modules.get("phasebus.telemetry.redaction.known")) is not None:
        known.forget_secrets()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The folder of a model without weights, which can be fetched."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder
