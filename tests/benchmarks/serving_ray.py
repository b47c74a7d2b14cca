"""What the serving middleware costs where it is meant to run: in a replica of Ray Serve, behind Ray's own HTTP proxy."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from statistics import median

from tests.benchmarks.measuring import Number, Table
from tests.benchmarks.serving_application import application
from tests.benchmarks.serving_http import ask
from tests.support.programs import free_port

SORTS = ("none", "phasebus")
REQUESTS = 240
ROUNDS = 10


def tables() -> Iterator[Table]:
    """Measure, and return what there is to print."""
    import ray
    from ray import serve

    port = free_port()
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        serve.start(
            http_options=serve.HTTPOptions(host="127.0.0.1", port=port), logging_config={"enable_access_log": False}
        )
        for sort in SORTS:
            serve.run(_deployed(sort), name=sort, route_prefix=f"/{sort}")
        seconds = asyncio.run(_measure(port))
    finally:
        serve.shutdown()
        ray.shutdown()
    table = Table(
        "HTTP under Ray Serve: time of a request to the same endpoint, through its proxy; ratios in the same round",
        ["middleware", "to none", "requests a second"],
        notes=["Requests a second of at least 0.9 of none is a time of at most 1.11."],
    )
    for sort in SORTS:
        ratio = median(a / b for a, b in zip(seconds[sort], seconds["none"], strict=True))
        table.rows.append(
            [sort, Number(ratio, "x", 1.11 if sort == "phasebus" else None), f"{1 / median(seconds[sort]):.0f}"]
        )
    yield table


def _deployed(sort: str) -> object:
    from ray import serve

    @serve.deployment(name=sort, ray_actor_options={"num_cpus": 0.1}, max_ongoing_requests=100)
    @serve.ingress(lambda: application(sort))
    class Chat: ...

    return Chat.bind()  # type: ignore[attr-defined]


async def _measure(port: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {sort: [] for sort in SORTS}
    for number in range(ROUNDS + 1):
        for sort in SORTS if number % 2 else reversed(SORTS):
            took = await ask(port, f"/{sort}/v1/chat/completions", REQUESTS)
            if number:  # the first round warms them up
                seconds[sort].append(took)
    return seconds
