"""What a fork server saves: starts of `vllm serve`, of `phasebus up` and of Ray Serve LLM, with it and without.

Takes about 45 minutes. ``ROUNDS=3 ROWS=run,up`` measures three rounds of two rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from statistics import median
from typing import Final

from phasebus.initializer.cli.demo_model import tiny_model_path, write_tiny_model
from tests.benchmarks.engine_starts import (
    kept_fork_server,
    phasebus_up,
    ray_serve_llm,
    restarted_vllm_serve,
    vllm_serve,
    vllm_serves,
)
from tests.benchmarks.measuring import Number, Table, spread

ROUNDS = int(os.environ.get("ROUNDS", "5"))
ENGINES: Final = 4

Pairs = list[tuple[float, float]]
"""What is compared with, and what is compared, of each round."""


def tables() -> Iterator[Table]:
    """Measure, and yield a table for each row that ROWS names; all of them by default."""
    model = str(write_tiny_model(tiny_model_path()))
    wanted = [name for name in os.environ.get("ROWS", "").split(",") if name] or list(_ROWS)
    for name in wanted:
        yield _ROWS[name](model)


def _run(model: str) -> Table:
    pairs, memory = [], []
    for _ in range(ROUNDS):
        plain, forked = vllm_serve(model), vllm_serve(model, observed=True)
        pairs.append((plain[0], forked[0]))
        memory.append((plain[1] / 2**20, forked[1] / 2**20))
    return _table(
        ("phasebus run -- vllm serve / vllm serve", pairs, 0.65, "s"),
        ("memory (PSS) of all processes", memory, 0.75, "MiB"),
    )


def _empty(model: str) -> Table:
    pairs = [
        (vllm_serve(model, empty_caches=True)[0], vllm_serve(model, observed=True, empty_caches=True)[0])
        for _ in range(ROUNDS)
    ]
    return _table(("phasebus run -- vllm serve / vllm serve, with vLLM's caches empty", pairs, 0.45, "s"))


def _kept(model: str) -> Table:
    with kept_fork_server() as found:
        pairs = [(vllm_serve(model)[0], vllm_serve(model, observed=True, environment=found)[0]) for _ in range(ROUNDS)]
    return _table(("phasebus run -- vllm serve / vllm serve, with a fork server that stayed", pairs, 0.25, "s"))


def _up(model: str) -> Table:
    pairs = [(vllm_serve(model)[0], phasebus_up(model)[0]) for _ in range(ROUNDS)]
    return _table(("phasebus up / vllm serve", pairs, 0.60, "s"))


def _serve_llm(model: str) -> Table:
    pairs = [(ray_serve_llm(model), ray_serve_llm(model, observed=True)) for _ in range(ROUNDS)]
    return _table(("Ray Serve LLM with BusServer / without, from serve.run on", pairs, 0.60, "s"))


def _engines(model: str) -> Table:
    def first(number: int) -> float:
        with kept_fork_server(start=False) as found:
            return vllm_serves(model, number, environment=found)

    def kept(number: int, found: Mapping[str, str]) -> float:
        return vllm_serves(model, number, environment=found)

    firsts = [(first(1), first(ENGINES)) for _ in range(ROUNDS)]
    with kept_fork_server() as found:
        later = [(kept(1, found), kept(ENGINES, found)) for _ in range(ROUNDS)]
    return _table(
        (f"{ENGINES} engines on one node / one, which share a fork server", firsts, 2.0, "s"),
        (f"{ENGINES} engines / one, with a fork server that stayed", later, 2.0, "s"),
    )


def _restart(model: str) -> Table:
    pairs = [restarted_vllm_serve(model) for _ in range(ROUNDS)]
    return _table(("restart after SIGKILL of the engine core / first start", pairs, 0.30, "s"))


def _table(*rows: tuple[str, Pairs, float, str]) -> Table:
    """Return a table with the medians, and the median of the ratios, of pairs of starts."""
    cells: list[list[Number | str | None]] = []
    for name, pairs, mark, unit in rows:
        ratios = [ours / other for other, ours in pairs]
        others, own = (median(each) for each in zip(*pairs, strict=True))
        ratio = Number(median(ratios), mark=mark, beside=spread(ratios))
        cells.append([name, f"{others:.1f} {unit}", f"{own:.1f} {unit}", ratio])
    return Table(
        f"From the start of the process to the first answer, medians of {ROUNDS} interleaved rounds",
        ["", "compared with", "measured", "ratio"],
        [*cells],
        ["On GPUs: install vLLM for them, and run the same command; nothing of this was measured there."],
    )


_ROWS: Final[Mapping[str, Callable[[str], Table]]] = {
    "run": _run,
    "empty": _empty,
    "kept": _kept,
    "up": _up,
    "serve_llm": _serve_llm,
    "engines": _engines,
    "restart": _restart,
}
