from __future__ import annotations

import pytest

from phasebus.telemetry.analysis import cache_uses
from phasebus.telemetry.journal import Run
from tests.support.runs import run_of, step


def start(**attributes: object) -> Run:
    known = {name.replace("__", "."): value for name, value in attributes.items()}
    return run_of(
        step("node", 0, 9, kind="node"),
        step("warm_up", 1, 2, "node", kind="engine_step", process="Worker", **known),  # type: ignore[arg-type]
    )


def miss(**factors: str) -> Run:
    return start(cache__compiled_model="miss", **{f"cache__compiled_model__factor__{k}": v for k, v in factors.items()})


def test_a_miss_names_the_factors_that_have_changed() -> None:
    (use,) = cache_uses(miss(torch="2.13", env="b", new="1"), miss(torch="2.13", env="a", old="2"))
    assert (use.cache, use.hit) == ("compiled_model", False)
    assert use.changes == {"env": ("a", "b"), "new": (None, "1"), "old": ("2", None)}
    assert use.explanation == "env: a → b, new: none → 1, old: 2 → none"


def test_a_miss_with_the_same_key_has_lost_its_files() -> None:
    (use,) = cache_uses(miss(torch="2.13"), miss(torch="2.13"))
    assert use.changes == {}
    assert "its files were not there" in use.explanation


@pytest.mark.parametrize(("present", "expected"), [(True, "there, but could not be used"), (False, "was not there")])
def test_a_miss_with_the_same_key_states_whether_its_file_was_there(present: bool, expected: str) -> None:
    run = start(cache__compiled_model="miss", cache__compiled_model__present=present)
    (use,) = cache_uses(run, start(cache__compiled_model="miss"))
    assert use.explanation == f"the key is the same: its file {'was ' if present else ''}{expected}"


def test_a_miss_without_an_earlier_use_has_no_known_cause() -> None:
    for before in (None, start(), start(cache__inductor="miss")):
        (use,) = cache_uses(miss(torch="2.13"), before)
        assert use.changes is None


def test_a_hit_needs_no_explanation_and_other_attributes_are_none() -> None:
    run = start(cache__inductor="hit", cache__inductor__hits=3, cache="miss", cache__x="other", bytes=3)
    (use,) = cache_uses(run, miss(torch="2.13"))
    assert (use.cache, use.hit, use.explanation) == ("inductor", True, "")
