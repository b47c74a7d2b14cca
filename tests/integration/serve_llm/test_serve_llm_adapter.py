"""What is used of Ray Serve LLM is there, and what is asked for reaches it; without starting anything."""

from __future__ import annotations

import inspect
import logging
import os
import pickle
import pwd
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from phasebus.bus import Context
from phasebus.initializer import (
    ENGINE_ARGS,
    MODEL,
    PLACEMENT_BUNDLES,
    PostEngineInit,
    PreDownload,
    PreEngineInit,
    PrePlacementGroup,
)

pytest.importorskip("ray.serve")

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.usefixtures("own_environment", "own_folder"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Ray, of pydantic, while it is imported
]


@pytest.fixture
def own_environment() -> Iterator[None]:
    """A replica changes the environment of its process, which here is that of all tests."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHASEBUS_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture
def anyio_backend() -> str:
    """Ray Serve runs on asyncio."""
    return "asyncio"


@pytest.fixture
def serve() -> Any:
    from phasebus.initializer.integrations import ray_serve

    return ray_serve


@pytest.fixture
def ray_config() -> Any:
    """Ray's configuration of a replica, as far as a callback is shown it."""
    engine = SimpleNamespace(hf_model_id="m", actual_hf_model_id="m", engine_kwargs={"max_model_len": 256})
    return SimpleNamespace(model_id="m", get_engine_config=lambda: engine)


@pytest.fixture
def make(serve: Any, ray_config: Any) -> Iterator[Any]:
    from ray.llm._internal.common.utils.download_utils import NodeModelDownloadable

    made: list[Any] = []

    def make(*callbacks: Any, port: int | None = None) -> Any:
        context = {
            "worker_node_download_model": NodeModelDownloadable.MODEL_AND_TOKENIZER,
            "placement_group": None,
            "runtime_env": {"env_vars": {"A": "1"}},
        }
        callback = serve.BusCallback(
            ray_config, callbacks=callbacks, port=port, raise_error_on_callback=True, ctx_kwargs=context
        )
        made.append(callback.replica)
        return callback

    yield make
    for replica in made:
        replica.close()


def test_installed_ray_has_every_seam_and_no_warning(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    serve.check_ray()
    assert [record for record in caplog.records if record.name.startswith("phasebus")] == []


def test_rays_callback_base_has_the_arguments_and_names_that_are_used() -> None:
    from ray.llm._internal.common.callbacks.base import CallbackBase, CallbackCtx

    assert list(inspect.signature(CallbackBase.__init__).parameters)[1:] == [
        "llm_config",
        "raise_error_on_callback",
        "ctx_kwargs",
        "kwargs",
    ]
    assert set(CallbackCtx.__dataclass_fields__) >= {
        "worker_node_download_model",
        "placement_group",
        "runtime_env",
        "run_init_node",
    }


def test_a_ray_without_a_seam_is_rejected_with_the_missing_name(serve: Any) -> None:
    with pytest.raises(serve.RayServeError, match=r"Ray 9.0 has no Path.no_such.*supports Ray 2\.60"):
        serve.check_ray("9.0", [(Path, ("no_such", "exists"))])


def test_a_version_that_was_not_tried_is_warned_of(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    serve.check_ray("2.99.0")
    assert "supports Ray Serve LLM of Ray 2.60 and is not tested with 2.99.0" in caplog.text


async def test_context_changes_reach_rays_download_and_its_engine(make: Any, ray_config: Any) -> None:
    async def another(event: PreDownload, context: Context) -> None:
        context[MODEL] = "other"
        context["local_node_download_model"] = "NONE"

    async def longer(event: PreEngineInit, context: Context) -> None:
        context[ENGINE_ARGS] = {**context[ENGINE_ARGS], "max_model_len": 512}
        context["engine_env"] = {"B": "2"}

    engines: list[Any] = []

    async def see(event: PostEngineInit, context: Context) -> None:
        engines.append(context["engine"])

    callback = make(another, longer, see)
    await callback.run_callback("on_before_node_init")
    assert ray_config.get_engine_config().hf_model_id == "other"
    assert not callback.ctx.worker_node_download_model
    assert not callback.ctx.run_init_node
    await callback.run_callback("on_after_node_init")
    assert ray_config.get_engine_config().engine_kwargs == {"max_model_len": 512}
    assert callback.ctx.runtime_env["env_vars"] == {"A": "1", "B": "2"}
    callback.replica.finish("engine_init", "the engine")
    await callback.replica.wait_for_end()
    assert engines == ["the engine"]


async def test_a_callback_that_raises_fails_rays_hook_with_its_error(make: Any) -> None:
    async def broken(event: PreDownload) -> None:
        raise ValueError("boom")

    with pytest.raises(Exception, match=r"on_before_node_init.*boom"):
        await make(broken).run_callback("on_before_node_init")


async def test_an_engine_that_fails_ends_the_phases_with_its_error(make: Any) -> None:
    callback = make()
    await callback.run_callback("on_before_node_init")
    await callback.run_callback("on_after_node_init")
    callback.replica.fail(RuntimeError("no memory"))
    with pytest.raises(RuntimeError, match="no memory"):
        await callback.replica.wait_for_end()


async def start(callback: Any) -> None:
    await callback.run_callback("on_before_node_init")
    await callback.run_callback("on_after_node_init")
    callback.replica.finish("engine_init", "the engine")
    await callback.replica.wait_for_end()


async def test_a_replica_starts_although_its_port_is_taken(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        await start(make(port=port))
    warnings = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert [f"port {port} on 127.0.0.1 is taken" in message for message in warnings] == [True]


async def test_a_replica_starts_without_a_journal_it_cannot_write(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PHASEBUS_STATE_DIR", str(tmp_path / "file"))
    await start(make())
    warnings = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert ["the journal is left out" in message for message in warnings] == [True]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier pigeon"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "-1"),
        ("OTEL_TRACES_EXPORTER", "nowhere"),
    ],
)
async def test_a_replica_starts_with_wrong_otel_variables(
    make: Any, name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv(name, value)
    await start(make())


async def test_a_replica_starts_without_a_home(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_entry(uid: int) -> Any:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("PHASEBUS_STATE_DIR", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pwd, "getpwuid", no_entry)
    await start(make())


def test_a_copy_for_the_tasks_of_the_download_travels_without_the_replica(serve: Any, make: Any) -> None:
    callback = make()
    callback.llm_config = None  # a real one can be pickled; this stand-in cannot
    copy = pickle.loads(pickle.dumps(callback))
    assert copy.ctx.runtime_env == {"env_vars": {"A": "1"}}
    with pytest.raises(serve.RayServeError, match="this copy of a BusCallback"):
        _ = copy.replica


def test_callbacks_change_the_placement_where_the_application_is_built(serve: Any) -> None:
    from phasebus.initializer.integrations.ray_serve.adapter import publish_placement

    async def more(event: PrePlacementGroup, context: Context) -> None:
        context[PLACEMENT_BUNDLES] = [{"CPU": 2}]

    context = Context({PLACEMENT_BUNDLES: [{"CPU": 1}]})
    publish_placement([more], context)
    assert context[PLACEMENT_BUNDLES] == [{"CPU": 2}]
