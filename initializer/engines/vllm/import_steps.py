"""The longest imports of a process, as steps inside the step that it imports in."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from phasebus.bus import AttributeValue, Bus, new_step_id
from phasebus.initializer.engines.protocol import ENGINE_STEP, EngineStepFinished, EngineStepStarted
from phasebus.initializer.engines.vllm.event_clock import on_event_clock
from phasebus.initializer.engines.vllm.inside.compile_times import COMPILE_SECONDS
from phasebus.initializer.engines.vllm.inside.imports import IMPORT_MODULES
from phasebus.telemetry.span_names import INNER_STEPS, LONGEST


async def publish_imports(
    bus: Bus,
    imports: Sequence[Mapping[str, Any]],
    *,
    step: str,
    since_ns: int,
    attributes: Mapping[str, AttributeValue],
) -> None:
    """Publish imports that have ended, nested as they happened.

    Of an import that began before the step that it is part of, the rest is published: a server that stays may have begun to
    import before it was needed.

    Args:
        bus: Where they are published.
        imports: As `ImportTimes.longest` returns them.
        step: The id of the step that they are part of, which still runs.
        since_ns: When that step began, in nanoseconds since the epoch.
        attributes: The process.
    """
    ids = [new_step_id() for _ in imports]
    offset_ns = time.monotonic_ns() - time.time_ns()
    moments: list[tuple[int, bool, int, EngineStepStarted | EngineStepFinished]] = []
    for index, each in enumerate(imports):
        began_ns, ended_ns = max(each["began_ns"], since_ns), each["ended_ns"]
        if ended_ns <= began_ns:
            continue
        about: dict[str, Any] = {
            "step": ids[index],
            "parent": step if each["inside"] is None else ids[each["inside"]],
            "kind": ENGINE_STEP.name,
            "name": IMPORT_MODULES,
            "attributes": {**attributes, "module": each["module"], INNER_STEPS: LONGEST},
        }
        if (compiling := each.get("compile_seconds", 0.0) * (ended_ns - began_ns) / (ended_ns - each["began_ns"])) > 0:
            about["attributes"][COMPILE_SECONDS] = round(compiling, 3)
        began = EngineStepStarted(**about, time_ns=began_ns, monotonic_ns=max(0, began_ns + offset_ns))
        ended = EngineStepFinished(
            **about,
            time_ns=ended_ns,
            monotonic_ns=max(0, ended_ns + offset_ns),
            seconds=(ended_ns - began_ns) / 1e9,
        )
        moments += [(began_ns, True, index, began), (ended_ns, False, -index, ended)]
    for *_, event in sorted(
        moments, key=lambda moment: moment[:3]
    ):  # an inner step begins after, and ends before its outer
        await bus.publish(on_event_clock(event))
