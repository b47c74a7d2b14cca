"""Makes the pictures of the README out of the last run: ``python -m tests.support.pictures``; `make pictures`."""

from __future__ import annotations

import sys
from pathlib import Path

from phasebus.telemetry.analysis import page_state, plot
from phasebus.telemetry.journal import find_journal, read_journal
from phasebus.telemetry.service.page import page_of
from tests.support.chromium import chromium
from tests.support.programs import ROOT

FOLDER = ROOT / "docs" / "pictures"


def make(folder: Path, run: str | None = None) -> None:
    """Write timeline.svg and the page's pictures in light, in dark and on a phone into `folder`."""
    journal = read_journal(find_journal(run))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "timeline.svg").write_text(plot(journal), encoding="utf-8")
    document = page_of(page_state(journal))
    with chromium() as browser:
        for name, width, scheme in (("page-light", 1200, "light"), ("page-dark", 1200, "dark"), ("phone", 390, "dark")):
            context = browser.new_context(
                viewport={"width": width, "height": 780},
                color_scheme="dark" if scheme == "dark" else "light",
                device_scale_factor=1.5,
            )
            page = context.new_page()
            page.set_content(document)
            page.wait_for_selector(".row")
            page.screenshot(path=folder / f"{name}.png")
            context.close()


if __name__ == "__main__":
    make(FOLDER, sys.argv[1] if len(sys.argv) > 1 else None)
