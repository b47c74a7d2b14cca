"""The progress of a start on standard error."""

import anyio
import pytest

from phasebus.bus import Bus
from phasebus.initializer.cli import terminal
from phasebus.telemetry import RunIdentity, Timeline


async def _start(error: Exception | None) -> bool:
    async with Bus("test") as bus:
        with terminal.show_progress(bus, Timeline(RunIdentity.fresh("node", {}))):
            if error is not None:
                raise error
            return True


def test_start_goes_on_with_one_warning_if_its_progress_cannot_be_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    warnings: list[str] = []
    monkeypatch.setattr(terminal, "_show", fail)
    monkeypatch.setattr(terminal.logger, "warning", lambda text, *values: warnings.append(text % values))
    assert anyio.run(_start, None)
    assert warnings == ["the progress is not shown: can't start new thread"]


def test_error_of_the_start_is_not_one_of_its_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "_show", lambda *_: None)
    with pytest.raises(ValueError, match="of the start"):
        anyio.run(_start, ValueError("of the start"))
