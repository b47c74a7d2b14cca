"""Makes the pictures of the documentation; `make pictures`.

``python -m tests.support.pictures [RUN]`` draws a recorded run, the last one by default. ``python -m tests.support.pictures
URL NAME`` takes one of a page that is being served, such as that of a start which is stuck.
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import Browser, Page

from phasebus.telemetry.analysis import page_state, plot
from phasebus.telemetry.history import find_run, usual_runs
from phasebus.telemetry.journal import JournalError, read_journal
from phasebus.telemetry.service.page import page_of
from tests.support.chromium import chromium
from tests.support.programs import ROOT

FOLDER = ROOT / "docs" / "pictures"
_WIDE, _PHONE = (1280, 800), (390, 844)


def recorded(folder: Path, run: str | None = None) -> None:
    """Write timeline.svg and the page's pictures, in light and in dark on a phone, into `folder`."""
    journal = read_journal(find_run(run))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "timeline.svg").write_text(plot(journal), encoding="utf-8")
    try:
        earlier = usual_runs(journal)
    except JournalError:
        earlier = ()
    document = page_of(page_state(journal, earlier))
    with chromium() as browser:
        for name, size, dark in (("page-ready", _WIDE, False), ("page-phone", _PHONE, True)):
            page = _opened(browser, size, dark=dark)
            page.set_content(document)
            _take(page, folder / f"{name}.png")


def served(folder: Path, url: str, name: str) -> None:
    """Write a picture of the page at `url` into `folder`."""
    with chromium() as browser:
        page = _opened(browser, _WIDE, dark=False)
        page.goto(url)
        _take(page, folder / f"{name}.png")


def _opened(browser: Browser, size: tuple[int, int], *, dark: bool) -> Page:
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        device_scale_factor=1.5,
    )
    return context.new_page()


def _take(page: Page, path: Path) -> None:
    page.wait_for_selector(".row")
    page.screenshot(path=path)
    page.context.close()


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if len(arguments) == 2:
        served(FOLDER, *arguments)
    else:
        recorded(FOLDER, *arguments)
