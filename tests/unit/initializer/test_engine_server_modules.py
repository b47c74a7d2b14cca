from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from phasebus.initializer.engines.vllm.inside import hooks


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in hooks._SERVERS:
        monkeypatch.delitem(sys.modules, module, raising=False)


@pytest.mark.parametrize(
    "module", ["vllm.entrypoints.launchers.api_server.entry", "vllm.entrypoints.openai.api_server"]
)
def test_process_with_a_server_module_of_new_or_old_vllm_is_a_server(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not hooks._is_server()
    monkeypatch.setitem(sys.modules, module, ModuleType(module))
    assert hooks._is_server()


def test_server_module_that_is_run_as_the_program_is_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    main = ModuleType("__main__")
    main.__spec__ = ModuleSpec("vllm.entrypoints.openai.api_server", None)
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert hooks._is_server()
