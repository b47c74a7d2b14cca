"""What a fork server saves: starts of `vllm serve`, of `phasebus up` and of Ray Serve LLM, with it and without.

Takes about 45 minutes. ``ROUNDS=3 ROWS=run,up`` measures three rounds of two rows.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
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
KV_CACHE_MIB: Final = 1024
"""The KV cache of each engine that is measured (`VLLM_CPU_KVCACHE_SPACE`); vLLM writes to all of it."""

_MEMORY_NOTES: Final = (
    "The mark is for all memory. vLLM fills the KV cache, so it is memory in both; without it, the ratio is that of the processes.",
    "Another vLLM of the same installation shares its libraries, which makes both sides smaller.",
)

Pairs = list[tuple[float, float]]
"""What is compared with, and what is compared, of each round."""


def tables() -> Iterator[Table]:
    """Measure, and yield a table for each row that ROWS names; all of them by default."""
    model = str(write_tiny_model(tiny_model_path()))
    wanted = [name for name in os.environ.get("ROWS", "").split(",") if name] or list(_ROWS)
    for name in wanted:
        yield _ROWS[name](model)


def _run(model: str) -> Table:
    memory: Pairs = []

    def start_both() -> tuple[float, float]:
        plain, forked = vllm_serve(model), vllm_serve(model, observed=True)
        memory.append((plain[1] / 2**20, forked[1] / 2**20))
        return plain[0], forked[0]

    return _table(
        ("phasebus run -- vllm serve / vllm serve", _rounds(start_both), 0.65, "s"),
        ("memory (PSS) of all processes", memory, 0.75, "MiB"),
        (
            f"the same without the KV cache, {KV_CACHE_MIB} MiB in both",
            [(other - KV_CACHE_MIB, ours - KV_CACHE_MIB) for other, ours in memory],
            None,
            "MiB",
        ),
        notes=_MEMORY_NOTES,
    )


def _empty(model: str) -> Table:
    pairs = _rounds(
        lambda: (
            vllm_serve(model, empty_caches=True)[0],
            vllm_serve(model, observed=True, empty_caches=True)[0],
        )
    )
    return _table(("phasebus run -- vllm serve / vllm serve, with vLLM's caches empty", pairs, 0.45, "s"))


def _kept(model: str) -> Table:
    with kept_fork_server() as found:
        pairs = _rounds(lambda: (vllm_serve(model)[0], vllm_serve(model, observed=True, environment=found)[0]))
    return _table(("phasebus run -- vllm serve / vllm serve, with a fork server that stayed", pairs, 0.25, "s"))


def _up(model: str) -> Table:
    pairs = _rounds(lambda: (vllm_serve(model)[0], phasebus_up(model)[0]))
    return _table(("phasebus up / vllm serve", pairs, 0.60, "s"))


def _up_kept(model: str) -> Table:
    def start(found: Mapping[str, str]) -> float:
        return phasebus_up(model, environment=found, forkserver="keep")[0]

    with kept_fork_server(start=False) as found:
        start(found)  # it leaves the server behind
        pairs = _rounds(lambda: (vllm_serve(model)[0], start(found)))
    return _table(("phasebus up / vllm serve, with a fork server that stayed", pairs, 0.30, "s"))


def _serve_llm(model: str) -> Table:
    pairs = _rounds(lambda: (ray_serve_llm(model), ray_serve_llm(model, observed=True)))
    return _table(("Ray Serve LLM with BusServer / without, from serve.run on", pairs, 0.60, "s"))


def _engines(model: str) -> Table:
    def first(number: int) -> float:
        with kept_fork_server(start=False) as found:
            return vllm_serves(model, number, environment=found)

    firsts = _rounds(lambda: (first(1), first(ENGINES)))
    with kept_fork_server() as found:
        later = _rounds(
            lambda: (vllm_serves(model, 1, environment=found), vllm_serves(model, ENGINES, environment=found))
        )
    table = _table(
        (f"{ENGINES} engines on one node / one, which share a fork server", firsts, 2.0, "s"),
        (f"{ENGINES} engines / one, with a fork server that stayed", later, None, "s"),
    )
    table.notes.append(
        "The last row has no mark: without imports one start keeps two CPUs busy, so others cannot run beside it."
    )
    return table


def _restart(model: str) -> Table:
    pairs = _rounds(lambda: restarted_vllm_serve(model))
    return _table(("restart after SIGKILL of the engine core / first start", pairs, 0.30, "s"))


def _rounds(measure: Callable[[], tuple[float, float]]) -> Pairs:
    """Return the seconds of each round; print them at once, as a row takes minutes and may be interrupted."""
    pairs: Pairs = []
    for number in range(1, ROUNDS + 1):
        pairs.append(measure())
        print(f"round {number}: {pairs[-1][0]:.1f} s and {pairs[-1][1]:.1f} s", file=sys.stderr, flush=True)
    return pairs


def _table(*rows: tuple[str, Pairs, float | None, str], notes: Sequence[str] = ()) -> Table:
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
        [*notes, "On GPUs: install vLLM for them, and run the same command; nothing of this was measured there."],
    )


_ROWS: Final[Mapping[str, Callable[[str], Table]]] = {
    "run": _run,
    "empty": _empty,
    "kept": _kept,
    "up": _up,
    "up_kept": _up_kept,
    "serve_llm": _serve_llm,
    "engines": _engines,
    "restart": _restart,
}
