"""Where the node of a replica is initialized: in the replica, or by Ray's tasks; without starting anything."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest

ray = pytest.importorskip("ray.serve") and pytest.importorskip("ray")

from phasebus.initializer.integrations.ray_serve import node_initialization  # noqa: E402

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Ray, of pydantic, while it is imported
]

HERE = "this node"
ENVIRONMENT = {"env_vars": {"A": "1"}}


@pytest.fixture
def anyio_backend() -> str:
    """Ray Serve runs on asyncio."""
    return "asyncio"


class Replica:
    """What Ray's engine has of a replica, with Ray's tasks replaced by a note that they ran."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, torch_home: Path) -> None:
        from ray.llm._internal.common.callbacks.base import CallbackBase

        monkeypatch.setenv("TORCH_HOME", str(torch_home))
        self.caller = cast(Any, ModuleType(node_initialization._CALLER))
        self.caller.initialize_node = self._run_tasks
        monkeypatch.setitem(sys.modules, node_initialization._CALLER, self.caller)
        monkeypatch.setattr(ray.util, "placement_group_table", self._placement)
        monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: HERE))
        self.nodes: Sequence[str] = [HERE]
        self.ran_tasks = False
        self.engine = SimpleNamespace(hf_model_id=None, actual_hf_model_id="model", mirror_config=None)
        self.callback = CallbackBase(llm_config=None, ctx_kwargs={"runtime_env": ENVIRONMENT})
        self.config = SimpleNamespace(
            get_or_create_callback=lambda: self.callback, get_engine_config=lambda: self.engine
        )

    async def initialize(self) -> str:
        node_initialization.initialize_in_replica(ENVIRONMENT)
        await self.caller.initialize_node(self.config)
        return "tasks" if self.ran_tasks else "replica"

    async def _run_tasks(self, config: Any) -> None:
        assert config is self.config
        self.ran_tasks = True

    def _placement(self, group: Any) -> dict[str, Any]:
        return {"bundles_to_node_id": dict(enumerate(self.nodes))}


@pytest.fixture
def replica(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Replica:
    return Replica(monkeypatch, tmp_path / "torch")


async def test_a_replica_on_one_node_does_what_rays_task_does_there(replica: Replica, tmp_path: Path) -> None:
    assert await replica.initialize() == "replica"
    assert replica.engine.hf_model_id == "model"
    assert (tmp_path / "torch" / "kernels").is_dir()


@pytest.mark.parametrize("nodes", [["another"], [HERE, "another"], [""]], ids=["another", "two", "pending"])
async def test_other_nodes_are_initialized_by_rays_tasks(replica: Replica, nodes: Sequence[str]) -> None:
    replica.nodes = nodes
    assert await replica.initialize() == "tasks"
    assert replica.engine.hf_model_id is None


@pytest.mark.parametrize("field", ["mirror_config", "actual_hf_model_id"])
async def test_what_has_a_mirror_is_downloaded_by_rays_tasks(
    replica: Replica, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        node_initialization, "_prepare_node", lambda config: None
    )  # it would fail, as this is no mirror
    setattr(replica.engine, field, "s3://bucket/model")
    assert await replica.initialize() == "tasks"


async def test_a_hook_before_the_download_runs_in_rays_task(replica: Replica) -> None:
    replica.callback.on_before_download_model_files_distributed = lambda: None
    assert await replica.initialize() == "tasks"


async def test_a_changed_runtime_env_reaches_rays_tasks(replica: Replica) -> None:
    replica.callback.ctx.runtime_env = {"env_vars": {"A": "2"}}
    assert await replica.initialize() == "tasks"


async def test_an_error_in_the_replica_is_left_to_rays_tasks(replica: Replica, tmp_path: Path) -> None:
    (tmp_path / "torch").write_text("a file, where a folder is to be made")
    assert await replica.initialize() == "tasks"


async def test_an_engine_of_another_kind_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, node_initialization._CALLER, raising=False)
    node_initialization.initialize_in_replica(ENVIRONMENT)
    assert node_initialization._CALLER not in sys.modules
