"""The examples of the documentation, each run as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from phasebus.initializer.cli import main
from tests.support.docs import ROOT, blocks, run_example

pytestmark = pytest.mark.anyio

ELSEWHERE = {"bus.md"}
"""Pages whose examples have a test of their own."""

PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md") if path.name not in ELSEWHERE)
EXAMPLES = [
    pytest.param(example, id=f"{page}-{number}")
    for page in PAGES
    for number, example in enumerate(blocks(f"docs/{page}", "python"), 1)
    if "async def main()" in example and "import ray" not in example
]


@pytest.mark.parametrize("example", EXAMPLES)
async def test_the_example_runs(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = await run_example(example)
    assert callable(names["main"])


async def test_the_phase_list_of_a_process_of_ones_own_has_a_report() -> None:
    [example] = blocks("docs/phase-lists.md", "python")
    await run_example(example)
    said = CliRunner().invoke(main, ["report"]).output
    assert "indexing nightly" in said
    assert "phase index" in said


def test_the_older_forms_are_each_shown_by_an_example() -> None:
    assert len(blocks("docs/migrating.md", "python")) == 3


@pytest.mark.parametrize("page", [*PAGES, *ELSEWHERE])
def test_what_a_page_links_to_is_there(page: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / "docs" / page).read_text()):
        assert (ROOT / "docs" / target).exists(), target


def test_every_promise_of_the_security_page_names_a_test_that_exists() -> None:
    table = (
        (ROOT / "docs" / "security.md").read_text().partition("| promise | test |\n|---|---|\n")[2].partition("\n\n")[0]
    )
    rows = table.splitlines()
    assert len(rows) >= 25
    for row in rows:
        named = re.fullmatch(r"\| .+ \| `(tests/[\w/]+\.py)`: `(test_\w+)` \|", row)
        assert named is not None, row
        assert re.search(rf"^(async )?def {named[2]}\(", (ROOT / named[1]).read_text(), re.MULTILINE), row
