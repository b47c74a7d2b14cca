"""What vLLM's levers save: the compilation of sources, as it was measured or counted in each process."""

from __future__ import annotations

from typing import Any

import pytest

from phasebus.initializer.engines.vllm.compilations import compile_seconds
from phasebus.initializer.engines.vllm.levers import levers
from phasebus.telemetry.analysis import Advice, advise
from phasebus.telemetry.journal import Run
from tests.support.runs import run_of, step

LEVER = "compile the packages once"


def start(*, share: float = 1.0, server: float = 0.0, waits: float = 4.0) -> Run:
    """Return a start of `vllm serve` whose front end compiled a share of what it imported, and for 2 s that are measured."""
    compiled: dict[str, Any] = {"compile_seconds": 2.0, "compiled_bytes": 2_000_000, "compiled_modules": 200}
    counted: dict[str, Any] = {"compiled_bytes": int(share * 9e7), "imported_bytes": 90_000_000} if share else {}
    forked: dict[str, Any] = {"fork_server_compile_seconds": server} if server else {}
    return run_of(
        step("node", 0, 30, kind="node", command="vllm serve m"),
        step("start_process", 0, 18, "node", kind="engine_step", process="front_end"),
        step("import_engine", 0, 18, "start_process", kind="engine_step", process="front_end", **counted),
        step(
            "configure_engine", 18, 22, "node", kind="engine_step", process="front_end", **(compiled if counted else {})
        ),
        step("start_process", 22, 22 + waits, "node", id="core", kind="engine_step", process="EngineCore", **forked),
        step("wait_for_fork_server", 22, 22 + waits, "core", kind="engine_step", process="EngineCore"),
        step("load_model", 22 + waits, 30, "node", kind="engine_step", process="EngineCore"),
        end=30.0,
    )


def advised(run: Run) -> dict[str, Advice]:
    return {each.lever.name: each for each in advise([run], levers)}


@pytest.mark.parametrize(("share", "seconds"), [(1.0, 18 * 1.8 / 2.8), (0.5, 18 * 0.9 / 1.9), (2.0, 18 * 1.8 / 2.8)])
def test_sources_that_were_counted_take_a_share_of_the_import(share: float, seconds: float) -> None:
    assert compile_seconds(start(share=share)) == pytest.approx({"import_engine": seconds, "configure_engine": 2.0})
    assert advised(start(share=share))[LEVER].saved == pytest.approx((seconds + 2.0) * 0.8)


def test_wait_for_a_fork_server_is_shorter_by_what_the_server_compiles_more_than_the_front_end() -> None:
    run = start(server=5.0)
    (wait,) = (each.id for each in run.steps if each.name == "wait_for_fork_server")
    assert compile_seconds(run)[wait] == pytest.approx(3.0)
    assert compile_seconds(start(server=1.0))[wait] == 0.0  # the front end is requested to wait later, not longer
    assert advised(run)[LEVER].saved - advised(start())[LEVER].saved == pytest.approx(3.0 * 0.8)


def test_later_wait_for_a_fork_server_is_shorter_by_what_that_compiled_since() -> None:
    def process(name: str, at: float, server: float) -> tuple[Any, Any]:
        about: dict[str, Any] = {"kind": "engine_step", "process": name}
        start = step("start_process", at, at + 3, id=name, fork_server_compile_seconds=server, **about)
        return start, step("wait_for_fork_server", at, at + 3, name, id=f"{name} waits", **about)

    waits = compile_seconds(run_of(*process("EngineCore", 1, 2.0), *process("Worker", 5, 2.5), end=9.0))
    assert waits == pytest.approx({"EngineCore waits": 2.0, "Worker waits": 0.5})


def test_no_step_saves_more_than_its_own_time() -> None:
    saved = advised(start(server=100.0))[LEVER].saved - advised(start())[LEVER].saved
    assert saved == pytest.approx(4.0)  # the whole wait


def test_wait_for_a_process_is_shorter_by_what_that_process_is_spared() -> None:
    """A process that is spawned has begun before the front end waits for it, so it is beside the wait."""
    compiled: dict[str, Any] = {"compiled_bytes": 9, "imported_bytes": 9}
    run = run_of(
        step("node", 0, 30, kind="node", command="vllm serve m"),
        step("connect_engine_core", 0, 30, "node", kind="engine_step", process="front_end"),
        step("start_process", 0, 28, "connect_engine_core", kind="engine_step", process="EngineCore"),
        step("import_engine", 0, 28, "start_process", kind="engine_step", process="EngineCore", **compiled),
        step("wait_for_engine_core", 0.01, 30, "connect_engine_core", kind="engine_step", process="front_end"),
        step("init_engine_core", 28, 31, "connect_engine_core", kind="engine_step", process="EngineCore"),
        end=30.0,
    )
    found = advised(run)
    assert found[LEVER].saved == pytest.approx(28 * 1.8 / 2.8 * 0.8, rel=0.01)
    assert found["keep a fork server that has vLLM imported"].saved == pytest.approx(28 * 0.97, rel=0.01)


def test_start_with_bytecode_is_not_advised_to_compile() -> None:
    assert LEVER not in advised(start(share=0))
    assert compile_seconds(start(share=0)) == {}


def test_attributes_that_are_no_numbers_are_ignored() -> None:
    run = run_of(
        step("import_engine", 0, 10, kind="engine_step", compiled_bytes="x", imported_bytes=9, compile_seconds=-1.0),
        end=10.0,
    )
    assert compile_seconds(run) == {}
