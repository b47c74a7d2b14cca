"""The few shapes a timeline is drawn with, as SVG, in colours for light and for dark surroundings."""

from __future__ import annotations

import math
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from phasebus.telemetry.redaction import redact

WIDTH: Final = 1200
LEFT: Final = 290
RIGHT: Final = 24
SPAN: Final = WIDTH - LEFT - RIGHT
"""The pixels that the time to ready is drawn over."""

COLOURS: Final = {
    "cluster": ("#64748b", "#94a3b8"),
    "node": ("#64748b", "#94a3b8"),
    "phase": ("#4f46e5", "#818cf8"),
    "download": ("#0d9488", "#2dd4bf"),
    "file": ("#5eead4", "#115e59"),
    "ray": ("#7c3aed", "#a78bfa"),
    "engine": ("#c2410c", "#fb923c"),
    "engine_step": ("#f59e0b", "#fbbf24"),
    "callback": ("#db2777", "#f472b6"),
    "other": ("#78716c", "#a8a29e"),
    "failed": ("#dc2626", "#f87171"),
}
"""The colour of each kind of step, on light and on dark."""

_STYLE = """
svg { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif }
.page { fill: #ffffff } .band { fill: #f6f7f9 } .line { stroke: #e3e6ea }
.text { fill: #1f2430 } .faint { fill: #6b7280 } .inside { fill: #ffffff } .bad { fill: #dc2626 }
.title { font-size: 17px; font-weight: 600 } .strong { font-weight: 600 } .end { text-anchor: end }
.mid { text-anchor: middle } .num { font-variant-numeric: tabular-nums } .gap { fill: url(#dark-time) }
.hatch { stroke: #ffffff; stroke-opacity: .55; stroke-width: 3 }
@media (prefers-color-scheme: dark) {
.page { fill: #0f1218 } .band { fill: #161a22 } .line { stroke: #262c37 }
.text { fill: #e6e9ef } .faint { fill: #9aa3b2 } .inside { fill: #0b0d12 } .bad { fill: #f87171 }
.hatch { stroke: #0b0d12 }
"""

_HATCHES = """
<pattern id="dark-time" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
<line class="hatch" x1="0" y1="0" x2="0" y2="7"/></pattern>
"""


def document(height: float, parts: list[str], label: str) -> str:
    """Return a whole SVG document, `WIDTH` wide and `height` high, both in pixels."""
    light = " ".join(f".k-{kind} {{ fill: {colours[0]} }}" for kind, colours in COLOURS.items())
    dark = " ".join(f".k-{kind} {{ fill: {colours[1]} }}" for kind, colours in COLOURS.items())
    size = f'viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label={quoteattr(label)}>',
            f"<style>{light}{_STYLE}{dark} }}</style>",
            f"<defs>{_HATCHES}</defs>",
            f'<rect class="page" width="{WIDTH}" height="{height:g}" rx="10"/>',
            *parts,
            "</svg>\n",
        ]
    )


def text(x: float, y: float, what: str, classes: str = "text") -> str:
    """Return a line of text whose baseline is at `y`."""
    return f'<text class="{classes}" x="{x:.1f}" y="{y:.1f}">{escape(redact(what))}</text>'


def bar(x: float, y: float, width: float, height: float, kind: str, tip: str = "") -> str:
    """Return a bar in the colour of `kind`, with a text that shows when it is pointed at."""
    radius = min(3.0, width / 2, height / 2)
    return (
        f'<rect class="{kind}" x="{x:.2f}" y="{y:.2f}" width="{max(width, 1.0):.2f}" height="{height:g}" '
        f'rx="{radius:.1f}"><title>{escape(redact(tip))}</title></rect>'
    )


def colour(kind: str, outcome: str) -> str:
    """Return the class that gives a step its colour."""
    if outcome in ("failed", "timed_out", "died", "cancelled"):
        return "k-failed"
    return f"k-{kind}" if kind in COLOURS else "k-other"


def shortened(what: str, longest: int) -> str:
    """Return `what` with its middle left out if it has more than `longest` characters."""
    if len(what) <= longest:
        return what
    tail = longest * 2 // 3
    return f"{what[: longest - tail - 1]}…{what[-tail:]}"


def ticks(seconds: float) -> list[float]:
    """Return where an axis of `seconds` seconds is marked: at most nine round numbers."""
    if seconds <= 0:
        return [0.0]
    rough = seconds / 8
    scale = 10.0 ** math.floor(math.log10(rough))
    if rough > 6:
        step = next((each for each in (10, 15, 30, 60, 120, 300, 600, 1800, 3600) if each >= rough), scale * 10)
    else:
        step = next(each * scale for each in (1, 2, 5, 10) if each * scale >= rough)
    return [index * step for index in range(math.floor(seconds / step + 1e-9) + 1)]
