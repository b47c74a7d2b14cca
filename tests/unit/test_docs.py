"""The examples of the documentation, each run as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from phasebus.initializer.cli import main
from tests.support import documented_names, links, reference_pages
from tests.support.docs import ROOT, blocks, run_example

pytestmark = pytest.mark.anyio

ELSEWHERE = {"guides/bus.md"}
"""Pages whose examples have a test of their own."""

PAGES = sorted({path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")} - ELSEWHERE)
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
    [example] = blocks("docs/guides/phase-lists.md", "python")
    await run_example(example)
    said = CliRunner().invoke(main, ["report"]).output
    assert "indexing nightly" in said
    assert "  index  " in said


def test_the_older_forms_are_each_shown_by_an_example() -> None:
    assert len(blocks("docs/guides/migrating.md", "python")) == 3


@pytest.mark.parametrize("page", links.PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_to_files_and_headings_that_exist(page: Path) -> None:
    assert list(links.broken_links(page)) == []


@pytest.mark.parametrize("target", ["no.md", "guides/bus.md#no-such-heading", "#nowhere", "../deploy/none"])
def test_link_that_leads_nowhere_is_found(target: str) -> None:
    assert list(links.broken_links(ROOT / "docs" / "x.md", f"see [this]({target}) and [that](guides/bus.md)")) == [
        target
    ]


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


@pytest.mark.parametrize("page", reference_pages.pages())
def test_generated_part_of_a_reference_page_is_the_one_of_the_code(page: str) -> None:
    _, generated = reference_pages.split(page)
    assert generated == reference_pages.pages()[page](), "python -m tests.support.reference_pages"


def test_every_variable_in_the_code_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "variables.md").read_text()
    assert [name for name in sorted(reference_pages.variables_in_code()) if f"`{name}`" not in page] == []


def test_metrics_variables_and_options_in_pages_and_manifests_exist() -> None:
    unknown = {}
    for path in documented_names.FILES:
        text = path.read_text()
        wrong = documented_names.unknown_metrics(text) | documented_names.unknown_variables(text)
        wrong |= set(documented_names.unknown_options(text))
        if wrong:
            unknown[str(path.relative_to(ROOT))] = sorted(wrong)
    assert unknown == {}


def test_names_that_do_not_exist_are_found() -> None:
    assert documented_names.unknown_metrics("`phasebus_phases_total`, `phasebus_phase_total`") == {
        "phasebus_phase_total"
    }
    assert documented_names.unknown_variables("PHASEBUS_PORT=1 PHASEBUS_PROT=2") == {"PHASEBUS_PROT"}
    text = "phasebus up node.yaml --once --twice\nphasebus report diff usual --percnt 3\nphasebus run -- vllm --fast"
    assert list(documented_names.unknown_options(text)) == ["up --twice", "diff --percnt"]
