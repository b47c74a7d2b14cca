from __future__ import annotations

from pathlib import Path

from tests.support.assertions import tests_without_assertion as unasserted

FILE = """
def check(value):
    assert value

def test_that_asserts():
    assert True

def test_that_expects_an_error():
    with pytest.raises(ValueError):
        int("x")

def test_that_calls_what_asserts():
    check(1)

async def test_that_cannot_fail():
    print("fine")
"""


def test_lint_lists_tests_that_cannot_fail_and_no_others(tmp_path: Path) -> None:
    path = tmp_path / "test_some.py"
    path.write_text(FILE)
    assert list(unasserted([path])) == [f"{path}:15: test_that_cannot_fail"]
