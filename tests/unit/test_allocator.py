"""The allocator of the C library: one arena for all threads, unless the environment sets their number."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import pytest

from phasebus.allocator import return_free_memory, use_one_arena


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The calls of a C library that does nothing; the variables of glibc's allocator are not set."""
    for name in ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    found: list[tuple[int, ...]] = []
    library = SimpleNamespace(
        mallopt=lambda *values: found.append(values), malloc_trim=lambda *values: found.append(values)
    )
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    return found


def test_one_arena_is_used_where_nothing_else_is_set(calls: list[tuple[int, ...]]) -> None:
    use_one_arena()
    assert calls == [(-8, 1)]


@pytest.mark.parametrize(
    "variable", [("MALLOC_ARENA_MAX", "4"), ("GLIBC_TUNABLES", "glibc.malloc.check=1:glibc.malloc.arena_max=2")]
)
def test_number_of_arenas_in_the_environment_is_left_alone(
    variable: tuple[str, str], calls: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*variable)
    use_one_arena()
    assert calls == []


def test_free_memory_is_returned(calls: list[tuple[int, ...]]) -> None:
    return_free_memory()
    assert calls == [(0,)]


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    other = SimpleNamespace()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: other)
    use_one_arena()
    return_free_memory()
    assert vars(other) == {}
