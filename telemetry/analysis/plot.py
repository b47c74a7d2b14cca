"""Plot: a run as one SVG picture, after `systemd-analyze plot`."""

from __future__ import annotations

from collections.abc import Iterable

from phasebus.telemetry.analysis.critical_path import critical_path_of
from phasebus.telemetry.analysis.nesting import PlacedStep, uncovered, walk
from phasebus.telemetry.analysis.svg import LEFT, RIGHT, SPAN, WIDTH, bar, colour, document, shortened, text, ticks
from phasebus.telemetry.formatting import format_duration, format_title
from phasebus.telemetry.journal import Run

_TOP = 96
_ROW = 22
_BAR = 14
_SMALLEST_SHARE = 0.002
_NARROWEST = 0.5
_MOST_NODES_IN_FULL = 8


def plot(run: Run) -> str:
    """Return `run` as an SVG document: a waterfall of its steps, with the critical path above it.

    Steps too short to be seen are left out, unless they failed. Hatched is time that no step inside accounts for. More
    than eight nodes are drawn as one row each.
    """
    return _Picture(run).draw()


class _Picture:
    def __init__(self, run: Run) -> None:
        self.run = run
        self.steps = tuple(walk(run))
        self.start = min((at.start_ns for at in self.steps), default=run.start_ns)
        self.whole = max((max((at.end_ns for at in self.steps), default=run.end_ns) - self.start) / 1e9, 1e-3)
        self.parts: list[str] = []
        self.shades: dict[str, str] = {}

    def draw(self) -> str:
        nodes = [at for at in self.steps if at.step.kind == "node"]
        y = float(_TOP)
        if len(nodes) > _MOST_NODES_IN_FULL:
            height = max(5.0, min(16.0, 3000 / len(nodes)))
            for node in nodes:
                y = self._node_in_one_row(node, y, height)
        else:
            shown = [at for at in self.steps if self._is_seen(at)]
            for number, at in enumerate(shown):
                y = self._row(at, y, banded=number % 2 == 0)
        body, self.parts = self.parts, []
        self._head(len(nodes))
        self._axis(y)
        self._critical_path()
        return document(y + 40, [*self.parts, *body, *self._legend(y + 22)], f"Timeline of the run {self.run.run}")

    def _x(self, time_ns: int) -> float:
        return LEFT + (time_ns - self.start) / 1e9 / self.whole * SPAN

    def _is_seen(self, at: PlacedStep) -> bool:
        return at.seconds >= _SMALLEST_SHARE * self.whole or at.step.outcome not in ("finished", "running")

    def _head(self, nodes: int) -> None:
        run, root = self.run, self.run.root
        seconds = format_duration(root.seconds(run.end_ns)) if root is not None else format_duration(0.0)
        outcome = root.outcome if root is not None else "empty"
        said = {"finished": f"ready in {seconds}", "running": f"running for {seconds}", "empty": "nothing began"}
        model = str(root.attributes.get("model", "")) if root is not None else ""
        name = f"{nodes} nodes" if nodes > 1 else (root.node if root is not None else run.node)
        headline = " · ".join(filter(None, [name, shortened(model.rstrip("/").rpartition("/")[2], 48)]))
        self.parts.append(text(24, 36, headline, "text title"))
        self.parts.append(text(WIDTH - RIGHT, 36, said.get(outcome, f"{outcome} after {seconds}"), "text title end"))
        self.parts.append(text(24, 56, f"run {run.run}   phasebus {run.phasebus}", "faint"))

    def _axis(self, bottom: float) -> None:
        for tick in ticks(self.whole):
            x = LEFT + tick / self.whole * SPAN
            self.parts.append(f'<line class="line" x1="{x:.1f}" y1="{_TOP - 8}" x2="{x:.1f}" y2="{bottom:.0f}"/>')
            self.parts.append(text(x, bottom + 14, format_duration(tick) if tick else "0", "faint mid num"))

    def _critical_path(self) -> None:
        self.parts.append(text(24, _TOP - 16, "critical path", "faint"))
        for link in critical_path_of(self.run, self.steps).links:
            x, width = self._x(link.start_ns), link.seconds / self.whole * SPAN
            if width < _NARROWEST:
                continue
            name = format_title(link.step.kind, link.step.name)
            tip = f"{'in ' if link.gap else ''}{name}: {format_duration(link.seconds)}"
            self.parts.append(bar(x, _TOP - 26, width, 12, colour(link.step.kind, link.step.outcome), tip))
            if link.gap:
                self.parts.append(bar(x, _TOP - 26, width, 12, "gap", f"under no name, {tip}"))

    def _row(self, at: PlacedStep, y: float, *, banded: bool) -> float:
        step = at.step
        if banded:
            self.parts.append(f'<rect class="band" x="12" y="{y:.0f}" width="{WIDTH - 24}" height="{_ROW}" rx="4"/>')
        indent = min(at.depth, 7) * 12
        process = step.attributes.get("process")
        name = format_title(step.kind, step.name)
        label = shortened(f"{name} · {process}" if process else name, 40 - indent // 7)
        weight = " strong" if step.kind in ("cluster", "node", "phase") else ""
        self.parts.append(text(24 + indent, y + 15, label, f"text{weight}"))
        x, width = self._x(at.start_ns), at.seconds / self.whole * SPAN
        tip = f"{name}: {format_duration(at.seconds)}, {step.outcome}" + (f": {step.error}" if step.error else "")
        self.parts.append(bar(x, y + 4, width, _BAR, colour(step.kind, step.outcome), tip))
        if at.inside:
            for each in uncovered(at):
                gap = (each.end_ns - each.start_ns) / 1e9
                if gap > _SMALLEST_SHARE * self.whole:
                    tip = f"{format_duration(gap)} in {name} that no step inside accounts for"
                    self.parts.append(bar(self._x(each.start_ns), y + 4, gap / self.whole * SPAN, _BAR, "gap", tip))
        self.parts.append(self._duration(at, x, width, y + 15))
        if step.error and step.outcome != "finished":
            y += _ROW
            self.parts.append(text(24 + indent, y + 14, shortened(step.error, 150), "bad"))
        return y + _ROW

    def _duration(self, at: PlacedStep, x: float, width: float, y: float) -> str:
        said = format_duration(at.seconds)
        room = 8 * len(said)
        if x + width + room < WIDTH - RIGHT:
            return text(x + width + 5, y, said, "faint num")
        if x - room > LEFT:
            return text(x - 5, y, said, "faint num end")
        return text(x + width - 6, y, said, "inside num end")

    def _node_in_one_row(self, node: PlacedStep, y: float, height: float) -> float:
        if height >= 11:
            self.parts.append(text(24, y + height - 3, shortened(node.node, 40)))
        thick = height - max(1.0, height / 5)
        for at in (node, *node.inside):
            tip = f"{node.node}, {format_title(at.step.kind, at.step.name)}: {format_duration(at.seconds)}, {at.step.outcome}"
            shade = "node" if at is node else self.shades.setdefault(at.step.name, _shade(len(self.shades)))
            kind = colour(shade, at.step.outcome)
            self.parts.append(bar(self._x(at.start_ns), y, at.seconds / self.whole * SPAN, thick, kind, tip))
        return y + height

    def _legend(self, y: float) -> Iterable[str]:
        shades = self.shades or {at.step.kind: at.step.kind for at in self.steps if self._is_seen(at)}
        x = float(LEFT)
        for name, shade in shades.items():
            yield bar(x, y + 3, 10, 10, colour(shade, "finished"))
            yield text(x + 15, y + 12, name.replace("_", " "), "faint")
            x += 32 + 6.6 * len(name)
        yield bar(x, y + 3, 10, 10, "k-node")
        yield bar(x, y + 3, 10, 10, "gap")
        yield text(x + 15, y + 12, "time under no name", "faint")


def _shade(number: int) -> str:
    """Return a colour for the phase with this number."""
    shades = ("phase", "download", "ray", "engine_step", "engine", "callback")
    return shades[number % len(shades)]
