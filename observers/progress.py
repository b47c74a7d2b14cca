"""The progress of steps: live bars on a terminal, a line at intervals in a log.

Only steps that report their progress in bytes are shown. A step inside one that is shown has a bar while it runs, and no
lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from phasebus.bus import StepEvent, StepFailed, StepFinished, StepProgress
from phasebus.observers.redrawing import can_redraw
from phasebus.telemetry.formatting import format_duration, format_progress
from phasebus.telemetry.redaction import redact_name
from phasebus.telemetry.span_names import span_name

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

_NAME_WIDTH = 48


@dataclass(slots=True)
class _Shown:
    """A step that is shown: whether it is inside another one, its last line, and its bar."""

    inner: bool
    done: float
    shown_ns: int
    bar: TaskID | None = None


class ProgressObserver:
    """Shows the progress of steps that move bytes.

    Args:
        console: The output; by default standard error. Bars are drawn if it is a terminal; see `can_redraw`.
        interval: The time between two lines of a step where there are no bars, in seconds.
    """

    def __init__(self, console: Console | None = None, *, interval: float = 10.0) -> None:
        from rich.console import Console

        self._console = console or Console(stderr=True)
        self._draws_bars = can_redraw(self._console)
        self._interval_ns = int(interval * 1e9)
        self._shown: dict[str, _Shown] = {}
        self._bars: Progress | None = None

    def observe(self, event: StepProgress | StepFinished | StepFailed) -> None:
        """Show one event."""
        if isinstance(event, StepProgress):
            if event.unit == "By":
                self._advance(event)
            return
        shown = self._shown.pop(event.step, None)
        if shown is not None:
            self._end(event, shown)

    def close(self) -> None:
        """Restore the terminal."""
        self._shown.clear()
        self._stop_bars()

    def _advance(self, event: StepProgress) -> None:
        shown = self._shown.get(event.step)
        if shown is None:
            inner = event.parent in self._shown
            shown = self._shown[event.step] = _Shown(inner, event.done, event.monotonic_ns)
            if self._draws_bars:
                shown.bar = self._started_bars().add_task(
                    _label(event, inner=inner), total=event.total, completed=int(event.done)
                )
            return
        if shown.bar is not None:
            self._started_bars().update(shown.bar, completed=event.done, total=event.total)
        elif not shown.inner and (passed_ns := event.monotonic_ns - shown.shown_ns) >= max(1, self._interval_ns):
            rate = (event.done - shown.done) / (passed_ns / 1e9)
            shown.done, shown.shown_ns = event.done, event.monotonic_ns
            self._print(f"{_label(event)}: {format_progress(event.done, event.total, event.unit, rate)}")

    def _end(self, event: StepFinished | StepFailed, shown: _Shown) -> None:
        if shown.bar is not None and self._bars is not None:
            if shown.inner:
                self._bars.remove_task(shown.bar)
            else:
                self._bars.stop_task(shown.bar)
                if not any(each.bar is not None for each in self._shown.values()):
                    self._stop_bars()
        elif not shown.inner:
            how = event.outcome if isinstance(event, StepFailed) else "done"
            self._print(f"{_label(event)}: {how} after {format_duration(event.seconds)}")

    def _started_bars(self) -> Progress:
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        if self._bars is None:
            self._bars = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=None),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=self._console,
                expand=True,
            )
            self._bars.start()
        return self._bars

    def _stop_bars(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)


def _label(event: StepEvent, *, inner: bool = False) -> str:
    name = redact_name(event.name)
    if inner:
        return f"  {name if len(name) <= _NAME_WIDTH else '…' + name[1 - _NAME_WIDTH :]}"
    return f"{redact_name(span_name(event.kind, event.name))} {name}"
