from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasebus.bus import Bus, Context, InvalidValueError, Key, phase_event
from phasebus.initializer import MODEL, PLACEMENT_BUNDLES, NodeConflictError, PreDownload
from phasebus.initializer.cluster.merge import NodeChange, changes_of, merge, snapshot

pytest.importorskip("ray")

FOLD = Key[list[int]]("key", on_conflict=lambda current, new: current + new)


def change(value: Any, *, key: str = "key", by: str = "cb", time: float = 0.0, deleted: bool = False) -> NodeChange:
    return NodeChange(key=key, value=value, by=by, during="pre_download", time=time, deleted=deleted)


def test_equal_values_agree_and_the_history_names_their_authors() -> None:
    context = Context()
    merge(context, {"node-0": [change(1)], "node-1": [change(1)]}, [])
    assert context["key"] == 1
    assert [(each.by, each.event) for each in context.history("key")] == [
        ("cb on node-0", "pre_download"),
        ("cb on node-1", "pre_download"),
    ]


def test_a_conflict_names_both_nodes_both_callbacks_and_the_remedy() -> None:
    with pytest.raises(NodeConflictError) as caught:
        merge(Context(), {"node-0": [change(1, by="one")], "node-1": [change(2, by="two")]}, [])
    for part in ("'one' on node-0", "'two' on node-1", "'key'", "Key('key', on_conflict=…)"):
        assert part in str(caught.value)


def test_different_values_of_a_key_with_the_rule_error_are_a_conflict() -> None:
    with pytest.raises(NodeConflictError):
        merge(Context(), {"a": [change(1)], "b": [change(2)]}, [Key("key", on_conflict="error")])


def test_a_key_with_the_rule_last_has_the_latest_value() -> None:
    context = Context()
    merge(context, {"a": [change(1, time=2.0)], "b": [change(2, time=1.0)]}, [Key("key")])
    assert context["key"] == 1


def test_a_key_that_a_node_deleted_is_deleted() -> None:
    context = Context({"key": 1})
    merge(context, {"a": [change(2), change(None, deleted=True)]}, [])
    assert "key" not in context


def test_a_value_that_the_key_rejects_is_rejected_on_the_driver_too() -> None:
    with pytest.raises(InvalidValueError):
        merge(Context(), {"a": [change([{"CPU": -1}], key="placement_bundles")]}, [PLACEMENT_BUNDLES])


@given(st.lists(st.lists(st.lists(st.integers(), max_size=3), min_size=1, max_size=3), min_size=1, max_size=5))
def test_a_reducer_folds_the_last_values_in_the_order_of_the_nodes(written: list[list[list[int]]]) -> None:
    context = Context()
    merge(context, {f"n{i}": [change(value) for value in values] for i, values in enumerate(written)}, [FOLD])
    assert context["key"] == [number for values in written for number in values[-1]]


def test_a_snapshot_omits_values_that_cannot_be_pickled_and_logs_them(caplog: pytest.LogCaptureFixture) -> None:
    context = Context({"rest": (each for each in range(1)), "model": "m"})
    assert snapshot(context, ["rest", "model", "absent"]) == {"model": "m"}
    assert "'rest', written by 'phasebus', cannot be pickled" in caplog.text


@pytest.mark.anyio
async def test_changes_are_those_of_callbacks_with_their_phase() -> None:
    async def set_model(event: PreDownload, context: Context) -> None:
        context[MODEL] = "other"

    def set_more(phase: str, config: Any, data: Any) -> dict[str, Any]:
        return {"more": phase, "rest": (each for each in range(1))}

    bus, context = Bus(), Context({"model": "m"})
    bus.subscribe(PreDownload, set_model)
    bus.subscribe(set_more)
    await bus.publish(PreDownload(), context)
    await bus.publish(phase_event("later")(), context)
    assert [(each.key, each.value, each.by, each.during) for each in changes_of(context)] == [
        ("model", "other", "set_model", "pre_download"),
        ("more", "pre_download", "set_more", "pre_download"),
        ("more", "later", "set_more", "later"),
    ]
